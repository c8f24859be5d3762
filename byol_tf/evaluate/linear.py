"""The BYOL paper's linear protocol: a linear layer on the frozen encoder, trained on random crops.

See section 4 and appendix C of the paper. All learning rates are trained at once, each with a
linear head of its own: the encoder, which is nearly all of the work, then sees each crop once. For
the same reason each rate has two heads, one that learns from all training images and one that
doesn't see the held-out ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from byol_tf.evaluate.crops import centre_crop, crop_layer, even_batch_size, labelled_batches
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import top_1_and_5, top_k_accuracy
from byol_tf.evaluate.progress import EpochProgress, Show
from byol_tf.runs.splits import require_labels, stratified_folds
from pipelines.sources import Images, subset

RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Learning rates at a batch of 256 images. The first five are the paper's; few images, hence few
steps, and small features need larger ones."""
_MOMENTUM = 0.9
_REFERENCE_BATCH_SIZE = 256  # deepmind-research byol/utils/schedules.py


@dataclass(frozen=True)
class LinearRecipe:
    """Settings of the training of the heads. The defaults are the paper's.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step, at most.
        rates: learning rates to try, at a batch of 256 images: that of a step is rate x batch size
            / 256. A single one is taken without a search, and no image is held out.
    """

    epochs: int = 80
    batch_size: int = 1024
    rates: tuple[float, ...] = RATES


class Heads(keras.Model):
    """Several linear classifiers of the same frozen features.

    Calling it returns logits `[N, count, classes]`. The kernels are initialised with zeros, so that
    all rates start at the same point.

    Args:
        encode: from the inputs of `fit` to features `[N, width]`; no gradient reaches it.
        width: of the features.
        count: number of heads.
        classes: of each head.
    """

    def __init__(self, encode: Callable, width: int, count: int, classes: int):
        super().__init__()
        self.encode, self.count, self.classes = encode, count, classes
        self.linear = keras.layers.Dense(
            count * classes, kernel_initializer="zeros", dtype="float32"
        )
        self.linear.build((None, width))
        self.built = True

    def call(self, inputs: Any) -> tf.Tensor:
        """Returns the logits of all heads, float32 `[N, count, classes]`."""
        logits = self.linear(tf.stop_gradient(self.encode(inputs)))
        return tf.reshape(logits, (-1, self.count, self.classes))

    def logits(self, features: np.ndarray, head: int) -> np.ndarray:
        """Applies one head to features `[n, width]`: logits `[n, classes]`.

        (Those of all heads and images could fill the memory.)
        """
        kernel, bias = self.linear.get_weights()
        columns = slice(head * self.classes, (head + 1) * self.classes)
        return features @ kernel[:, columns] + bias[columns]


def train_heads(
    encode: Callable,
    width: int,
    batches: tf.data.Dataset,
    labels: np.ndarray,
    seen: np.ndarray,
    classes: int,
    rates: Sequence[float],
    batch_size: int,
    epochs: int,
    show: Show = lambda text: None,
) -> Heads:
    """Trains a head for each rate: SGD with Nesterov momentum, cosine decay, no weight decay.

    Args:
        encode: see `Heads`.
        width: see `Heads`.
        batches: endless, of (inputs of `encode`, int64 indices `[N]` of the images).
        labels: int `[n]` of all images.
        seen: bool `[n, heads]`: which images each head learns from.
        classes: number of classes.
        rates: of each head, at a batch of 256.
        batch_size: of `batches`.
        epochs: of `n // batch_size` steps.
        show: called after each epoch.
    """
    steps, count = len(labels) // batch_size, len(rates)
    scales = tf.constant(np.asarray(rates, np.float32) * batch_size / _REFERENCE_BATCH_SIZE)
    all_labels, all_seen = tf.constant(labels, tf.int64), tf.constant(seen, tf.float32)

    def with_labels_and_weights(inputs: Any, indices: tf.Tensor) -> tuple:
        # Without weight decay SGD with momentum is linear in the gradient, so that the weight of a
        # head's loss can be its rate, over the number of images in the batch that the head sees.
        weights = tf.gather(all_seen, indices)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=0)) * scales
        return inputs, tf.repeat(tf.gather(all_labels, indices)[:, None], count, axis=1), weights

    heads = Heads(encode, width, count, classes)
    optimizer = keras.optimizers.SGD(
        keras.optimizers.schedules.CosineDecay(1.0, steps * epochs),
        momentum=_MOMENTUM,
        nesterov=True,
    )
    optimizer.build(heads.trainable_variables)  # within the first step it would be traced twice
    heads.compile(
        optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        jit_compile=False,
    )
    heads.fit(
        batches.map(with_labels_and_weights),
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[EpochProgress("evaluating: linear", show)],
    )
    return heads


def linear_protocol(
    inference: keras.Model,
    size: int,
    train: Images,
    test: Images,
    recipe: LinearRecipe,
    seed: int,
    show: Show = lambda text: None,
) -> dict:
    """Trains the heads and reports the one with the best rate that saw all images.

    The best rate is that of the head with the highest accuracy on the images held out from it.

    Args:
        inference: from uint8 or uint16 images to representations (see `models/inference.py`); not
            changed.
        size: side of a crop in pixels.
        train: images with labels.
        test: images with labels. They and held-out images are evaluated by their centre, 224 / 256
            of the shorter side.
        recipe: of the training.
        seed: decides held-out images, order and crops.
        show: called after each epoch.

    Returns:
        `top1`, `top5`, `rate`, `held_out_accuracy` of each rate, `epochs`, `batch_size`.

    Raises:
        ProtocolError: if no class has two images, so that none can be held out.
    """
    labels, test_labels = require_labels(train), require_labels(test)
    rates = recipe.rates
    classes = int(max(labels.max(), test_labels.max())) + 1
    batch_size = even_batch_size(len(train), recipe.batch_size)
    crops = crop_layer(train, size)

    def encode(inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        # whole numbers, as any export takes them
        pixels = tf.saturate_cast(tf.round(crops(*inputs)), train.dtype)
        return inference(pixels, training=False)

    batches = labelled_batches(train, size, batch_size, seed).map(
        lambda pixels, params, indices: ((pixels, params), indices)
    )
    seen: np.ndarray = np.ones((len(labels), len(rates)), bool)
    held_out = None
    if len(rates) > 1:
        held_out = stratified_folds(labels, seed)[0]
        seen = np.concatenate([seen, np.repeat(~held_out[:, None], len(rates), axis=1)], axis=1)
    head_rates = rates * (seen.shape[1] // len(rates))
    width = inference.output_shape[-1]
    heads = train_heads(
        encode,
        width,
        batches,
        labels,
        seen,
        classes,
        head_rates,
        batch_size,
        recipe.epochs,
        show,
    )
    centre = partial(centre_crop, size=size)
    accuracies = []
    if held_out is not None:
        features = embed(inference, subset(train, np.flatnonzero(held_out)), centre)
        accuracies = [
            top_k_accuracy(heads.logits(features, len(rates) + number), labels[held_out])
            for number in range(len(rates))
        ]
    best = int(np.argmax(accuracies)) if accuracies else 0
    return {
        **top_1_and_5(heads.logits(embed(inference, test, centre), best), test_labels),
        "rate": rates[best],
        "held_out_accuracy": {
            f"{rate:g}": value for rate, value in zip(rates, accuracies, strict=False)
        },
        "epochs": recipe.epochs,
        "batch_size": batch_size,
    }
