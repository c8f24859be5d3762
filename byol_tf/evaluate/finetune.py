"""Fine-tuning on few labels, and the same network trained from scratch on the same labels.

The STL-10 paper (section 3.2) trains encoder and linear layer for 25 epochs, and names neither
optimizer, learning rate nor augmentation of that. Here: Adam, its optimizer of pre-training, with
rates from its 1e-4 for a batch of 128 upwards and a cosine decay to 0; random crops with flips, as
in the BYOL paper's semi-supervised protocol.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.errors import WorkKept
from byol_tf.evaluate.crops import crop_layer, even_batch_size, labelled_batches
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import TopAccuracies, top_1_and_5, top_k_accuracy
from byol_tf.evaluate.splits import labelled_fraction, require_labels, stratified_folds
from byol_tf.logs import counted
from byol_tf.models.inference import split_inference_model
from byol_tf.models.networks import initialize_from_data
from pipelines.sources import Images, subset

FINETUNE_RATES = (1e-4, 3e-4, 1e-3)
SUPERVISED_RATES = (3e-4, 1e-3, 3e-3)
_DATA_INIT_IMAGES = 256  # as in pre-training
_WIDENING_FACTOR, _WIDENINGS = 3.0, 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TuneRecipe:
    """Settings of the training of encoder and linear layer.

    Attributes:
        from_scratch: whether the encoder is initialised anew: the supervised baseline.
        rates: learning rates to try. A single one is used as it is, and no image is held out.
        widen: whether rates beyond these are tried too (see `search_rates`).
        fraction: of the labelled images to use, above 0 and at most 1.
        seeds: number of repetitions, each with its own sample of images, order, crops and
            initial weights.
        epochs: passes over those images.
        batch_size: images per step, at most.
    """

    from_scratch: bool
    rates: tuple[float, ...]
    widen: bool = False
    fraction: float = 1.0
    seeds: int = 3
    epochs: int = 25
    batch_size: int = 128


def tune_protocol(
    inference: keras.Model,
    train: Images,
    test: Images,
    recipe: TuneRecipe,
    seed: int,
    verbose: int | str = 0,
) -> dict:
    """Chooses the learning rate on held-out labels of the first seed, then trains with each seed.

    Args:
        inference: see `models/inference.py`; its encoder is copied.
        train: images with labels.
        test: images with labels, evaluated by the centre crop of `inference`.
        recipe: of the training.
        seed: the first one.
        verbose: as in `keras.Model.fit`.

    Returns:
        `top1` and `top5`: means over the seeds; `top1_std`: their standard deviation (n - 1),
        None for one seed; `top1_each`; `fraction`, `labels` (their number), `rate`,
        `held_out_accuracy` of each rate, `epochs`, `batch_size`.

    Raises:
        ProtocolError: if there are fewer labels than classes, none can be held out, or
            `inference` is a model of another form.
        WorkKept: on Ctrl-C after the first seed, with the result of the finished ones.
    """
    labels, test_labels = require_labels(train), require_labels(test)
    classes = int(max(labels.max(), test_labels.max())) + 1
    samples = [
        subset(train, labelled_fraction(labels, recipe.fraction, seed + number))
        for number in range(recipe.seeds)
    ]

    def trained(images: Images, rate: float, seed: int) -> keras.Model:
        return _train_classifier(inference, images, classes, rate, recipe, seed, verbose)

    best, accuracies = recipe.rates[0], {}
    if len(recipe.rates) > 1:
        held_out = stratified_folds(require_labels(samples[0]), seed)[0]
        training = subset(samples[0], np.flatnonzero(~held_out))
        validation = subset(samples[0], np.flatnonzero(held_out))

        def accuracy(rate: float) -> float:
            scores = embed(trained(training, rate, seed), validation)
            top1 = top_k_accuracy(scores, require_labels(validation))
            logger.info("rate %g: %.1f%% of the held-out labels", rate, 100 * top1)
            return top1

        accuracies = search_rates(recipe.rates, accuracy, recipe.widen)
        best = best_rate(accuracies)
    results: list[TopAccuracies] = []

    def summary() -> dict:
        return _over_seeds(results) | {
            "fraction": recipe.fraction,
            "labels": len(samples[0]),
            "rate": best,
            "held_out_accuracy": {f"{rate:g}": value for rate, value in accuracies.items()},
            "epochs": recipe.epochs,
            "batch_size": even_batch_size(len(samples[0]), recipe.batch_size),
        }

    try:
        for number, images in enumerate(samples):
            scores = embed(trained(images, best, seed + number), test)
            results.append(top_1_and_5(scores, test_labels))
            logger.info("seed %d: %.1f%%", seed + number, 100 * results[-1]["top1"])
    except KeyboardInterrupt:
        if not results:
            raise
        text = f"{len(results)} of {counted(len(samples), 'seed')} finished"
        raise WorkKept(text, summary()) from None
    return summary()


def _over_seeds(results: Sequence[TopAccuracies]) -> dict:
    """Returns means and standard deviation of the accuracies of several seeds."""
    top1 = [result["top1"] for result in results]
    top5 = [result["top5"] for result in results if result["top5"] is not None]
    return {
        "top1": float(np.mean(top1)),
        "top5": float(np.mean(top5)) if top5 else None,
        "top1_std": float(np.std(top1, ddof=1)) if len(top1) > 1 else None,
        "top1_each": top1,
    }


def search_rates(
    rates: Sequence[float], accuracy: Callable[[float], float], widen: bool
) -> dict[float, float]:
    """Tries learning rates, and further ones while the best is the smallest or largest.

    A grid that suits some images can be off by orders of magnitude for others; the best of it is
    then merely its end.

    Args:
        rates: those that are tried in any case.
        accuracy: trains with a rate and returns the accuracy on held-out images.
        widen: whether to try a rate three times beyond an end of those tried while that end is the
            best, three times at most.

    Returns:
        The accuracy of each rate, in the order of trial.
    """
    accuracies = {rate: accuracy(rate) for rate in rates}
    for _ in range(_WIDENINGS if widen else 0):
        best = best_rate(accuracies)
        if best == max(accuracies):
            beyond = best * _WIDENING_FACTOR
        elif best == min(accuracies):
            beyond = best / _WIDENING_FACTOR
        else:
            break
        accuracies[beyond] = accuracy(beyond)
    return accuracies


def best_rate(accuracies: dict[float, float]) -> float:
    """The first of the rates with the highest accuracy."""
    return max(accuracies, key=lambda rate: accuracies[rate])


class CroppingClassifier(keras.Model):
    """Crops, flips and classifies (pixels, params) of `labelled_batches`."""

    def __init__(self, crops: keras.layers.Layer, network: keras.Model):
        super().__init__(dtype="float32")  # no lower precision would hold the crops' parameters
        self.crops, self.network = crops, network
        self.built = True

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns logits `[N, classes]`."""
        return self.network(self.crops(*inputs), training=training)


def _train_classifier(
    inference: keras.Model,
    images: Images,
    classes: int,
    rate: float,
    recipe: TuneRecipe,
    seed: int,
    verbose: int | str,
) -> keras.Model:
    """Trains a model from uint8 images of any size to logits `[N, classes]`."""
    keras.utils.set_random_seed(seed)
    resize, normalize, pretrained = split_inference_model(inference)
    encoder = keras.models.clone_model(pretrained)
    if not recipe.from_scratch:
        encoder.set_weights(pretrained.get_weights())
    size = pretrained.input_shape[1]
    batch_size = even_batch_size(len(images), recipe.batch_size)
    crops = crop_layer(images, size)
    batches = labelled_batches(images, size, batch_size, seed)
    if recipe.from_scratch:
        pixels, params, _ = next(iter(batches))
        initialize_from_data([encoder], normalize(crops(pixels, params)[:_DATA_INIT_IMAGES]))
    linear = keras.layers.Dense(classes, dtype="float32", name="classifier")
    crop = keras.Input((size, size, 3))
    model = CroppingClassifier(crops, keras.Model(crop, linear(encoder(normalize(crop)))))
    labels, steps = tf.constant(require_labels(images), tf.int64), len(images) // batch_size
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps * recipe.epochs)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    dataset = batches.map(
        lambda pixels, params, indices: ((pixels, params), tf.gather(labels, indices))
    )
    model.fit(dataset, epochs=recipe.epochs, steps_per_epoch=steps, shuffle=False, verbose=verbose)
    photo = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(photo, linear(encoder(normalize(resize(photo)), training=False)))
