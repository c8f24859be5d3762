"""The BYOL paper's linear protocol (section 4, appendix C): a linear layer on the frozen encoder,
trained on random crops with flips.

All rates that are tried are trained at once, each in a linear head of its own: the encoder, which
is nearly all of the work, then sees each crop once. For the same reason each rate has two heads,
one that learns from all training images and one that doesn't see those held out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.evaluate.crops import batch_size_for, crop_layer, labelled_batches
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import top_1_and_5, top_k_accuracy
from byol_tf.evaluate.splits import held_out
from pipelines.sources import Images, subset

RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Learning rates at a batch of 1024 images. The first five are the paper's; few images, hence few
steps, and small features need more."""
_MOMENTUM = 0.9
_REFERENCE_BATCH = 1024


@dataclass(frozen=True)
class LinearRecipe:
    """How the heads are trained. The defaults are the paper's.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, fewer where there are fewer.
        rates: that are tried, at a batch of 1024 images; a single one is used as it is and no image
            held out.
    """

    epochs: int = 80
    batch_size: int = 1024
    rates: tuple[float, ...] = RATES


class Heads(keras.Model):
    """Several linear classifiers side by side on the same frozen features.

    Args:
        encode: from what `fit` is given to features `[N, width]`; no gradient reaches it.
        width: of the features.
        count: of heads.
        classes: of each.

    Calling it gives logits `[N, count, classes]`. They begin at zero, so all rates begin at the
    same point.
    """

    def __init__(self, encode: Callable, width: int, count: int, classes: int):
        super().__init__()
        self.encode, self.shape_of_logits = encode, (-1, count, classes)
        self.linear = keras.layers.Dense(
            count * classes, kernel_initializer="zeros", dtype="float32"
        )
        self.linear.build((None, width))
        self.built = True

    def call(self, inputs):
        return tf.reshape(self.linear(tf.stop_gradient(self.encode(inputs))), self.shape_of_logits)

    def logits(self, features: np.ndarray, head: int) -> np.ndarray:
        """One head's logits `[n, classes]` of features `[n, width]`. (Those of all heads and images
        could fill the memory.)"""
        kernel, bias = self.linear.get_weights()
        classes = self.shape_of_logits[2]
        columns = slice(head * classes, (head + 1) * classes)
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
    verbose: int | str = 0,
) -> Heads:
    """Trains a head for each rate by SGD with Nesterov momentum and a cosine rate, without weight
    decay.

    Args:
        encode, width: see `Heads`.
        batches: endless, of (inputs of `encode`, int64 indices `[N]` of the images).
        labels: int `[n]` of all images.
        seen: bool `[n, heads]`: which images each head learns from.
        classes: number of classes.
        rates: of each head, at a batch of 1024.
        batch_size: of `batches`.
        epochs: of `n // batch_size` steps.
        verbose: as in `keras.Model.fit`.
    """
    steps, count = len(labels) // batch_size, len(rates)
    scale = tf.constant(np.asarray(rates, np.float32) * batch_size / _REFERENCE_BATCH)
    all_labels, all_seen = tf.constant(labels, tf.int64), tf.constant(seen, tf.float32)

    def labelled(inputs, indices):
        shares = tf.gather(all_seen, indices)
        shares = tf.math.divide_no_nan(
            shares, tf.reduce_sum(shares, axis=0)
        )  # the mean over the images that a head sees
        # Without decay SGD is linear in the gradient, also with momentum: a head's rate can be a
        # factor of its loss.
        return (
            inputs,
            tf.repeat(tf.gather(all_labels, indices)[:, None], count, axis=1),
            shares * scale,
        )

    heads = Heads(encode, width, count, classes)
    heads.compile(
        keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(1.0, steps * epochs),
            momentum=_MOMENTUM,
            nesterov=True,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        jit_compile=False,
    )
    heads.fit(
        batches.map(labelled), epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=verbose
    )
    return heads


def linear_protocol(
    inference: keras.Model,
    size: int,
    train: Images,
    test: Images,
    recipe: LinearRecipe,
    seed: int,
    verbose: int | str = 0,
) -> dict:
    """Trains the heads, chooses the rate by the held-out images and reports the head of that rate
    which saw all images.

    Args:
        inference: from uint8 images to representations (see `models/inference.py`); left as it is.
        size: side of a crop.
        train, test: with labels. Held-out and test images are judged by their centre, as
            `inference` takes it.
        recipe: of the training.
        seed: decides held-out images, order and crops.
        verbose: as in `keras.Model.fit`.

    Returns:
        `top1`, `top5`, `rate`, `held_out_accuracy` of each rate, `epochs`, `batch_size`.

    Raises:
        ProtocolError: see `held_out`.
    """
    labels, rates = train.labels, recipe.rates
    classes = int(max(labels.max(), test.labels.max())) + 1
    held = held_out(labels, seed) if len(rates) > 1 else np.zeros(len(labels), bool)
    batch_size = batch_size_for(len(train), recipe.batch_size)
    crops = crop_layer(train, size)

    def encode(inputs):
        # uint8, as any export takes them
        return inference(tf.saturate_cast(tf.round(crops(*inputs)), tf.uint8), training=False)

    batches = labelled_batches(train, size, batch_size, seed).map(
        lambda pixels, params, indices: ((pixels, params), indices)
    )
    seen = np.concatenate(
        [np.ones((len(labels), len(rates)), bool), np.repeat(~held[:, None], len(rates), axis=1)],
        axis=1,
    )
    seen = seen if held.any() else seen[:, : len(rates)]
    each = rates * (seen.shape[1] // len(rates))
    width = inference.output_shape[-1]
    heads = train_heads(
        encode, width, batches, labels, seen, classes, each, batch_size, recipe.epochs, verbose
    )
    best, tried = 0, {}
    if held.any():
        features = embed(inference, subset(train, np.flatnonzero(held)))
        accuracies = [
            top_k_accuracy(heads.logits(features, len(rates) + number), labels[held])
            for number in range(len(rates))
        ]
        best, tried = (
            int(np.argmax(accuracies)),
            {f"{rate:g}": value for rate, value in zip(rates, accuracies, strict=True)},
        )
    measured = top_1_and_5(heads.logits(embed(inference, test), best), test.labels)
    return measured | {
        "rate": rates[best],
        "held_out_accuracy": tried,
        "epochs": recipe.epochs,
        "batch_size": batch_size,
    }
