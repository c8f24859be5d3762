"""Fine-tuning on few labels, and the same network from scratch on the same labels (STL-10 paper,
section 3.2).

The paper trains encoder and linear layer for 25 epochs, and names neither optimizer, rate nor
augmentation of that. Here: Adam, which is its optimizer of pre-training, at rates from its 1e-4 for
a batch of 128 upwards, cosine down to 0; random crops with flips, as in the BYOL paper's
semi-supervised protocol.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.evaluate.crops import batch_size_for, crop_layer, labelled_batches
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import top_1_and_5, top_k_accuracy
from byol_tf.evaluate.splits import held_out, labelled_fraction
from byol_tf.models.inference import split_inference_model
from byol_tf.models.networks import initialize_from_data
from pipelines.sources import Images, subset

_FACTOR, _TIMES = 3.0, 3


def tried_rates(
    rates: Sequence[float], accuracy: Callable[[float], float], widen: bool
) -> dict[float, float]:
    """Rate -> accuracy on held-out images, of all that were tried, in that order. The first of the
    best is the one to take.

    Args:
        rates: that are tried in any case.
        accuracy: trains with a rate and judges.
        widen: whether a rate three times beyond an end of those tried is tried too while that end
            is the best, three times at most. A grid that is right for some images can be off by
            orders for others, and its end then looks like a choice.
    """
    tried = {rate: accuracy(rate) for rate in rates}
    for _ in range(_TIMES if widen else 0):
        best = best_rate(tried)
        if best == max(tried):
            beyond = best * _FACTOR
        elif best == min(tried):
            beyond = best / _FACTOR
        else:
            break
        tried[beyond] = accuracy(beyond)
    return tried


def best_rate(tried: dict[float, float]) -> float:
    """The first of those with the highest accuracy."""
    return max(tried, key=tried.get)


FINETUNE_RATES = (1e-4, 3e-4, 1e-3)
SUPERVISED_RATES = (3e-4, 1e-3, 3e-3)
_DATA_INIT_IMAGES = 256  # as in pre-training


@dataclass(frozen=True)
class TuneRecipe:
    """How encoder and linear layer are trained.

    Attributes:
        from_scratch: whether the encoder's weights are drawn anew: the supervised baseline.
        rates: that are tried; a single one is used as it is and no image held out.
        widen: whether others are tried beyond an end of them (see `rate_search.py`).
        fraction: of the labelled images that is used.
        seeds: how often it is repeated, each time with another draw of images, order, crops and
            first weights.
        epochs: passes over those images.
        batch_size: images a step, fewer where there are fewer.
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
    say: Callable[[str], None] = lambda line: None,
    verbose: int | str = 0,
) -> dict:
    """Chooses the rate on a held-out part of the first seed's labels, then trains with each seed on
    all of that seed's.

    Args:
        inference: see `models/inference.py`; its encoder is copied.
        train, test: with labels. Test images are judged by their centre, as `inference` takes it.
        recipe: of the training.
        seed: the first one.
        say: prints a line for people after each training.
        verbose: as in `keras.Model.fit`.

    Returns:
        `top1` and `top5`: means over the seeds; `top1_std`: their standard deviation (n - 1),
        None for one seed; `top1_each`; `fraction`, `labels` (their number), `rate`,
        `held_out_accuracy` of each rate, `epochs`, `batch_size`.

    Raises:
        ProtocolError: if a class would be left without an image, none can be held out, or
            `inference` is of another form.
    """
    classes = int(max(train.labels.max(), test.labels.max())) + 1
    parts = [
        subset(train, labelled_fraction(train.labels, recipe.fraction, seed + number))
        for number in range(recipe.seeds)
    ]
    best, tried = recipe.rates[0], {}
    if len(recipe.rates) > 1:
        held = held_out(parts[0].labels, seed)
        kept, judged = (
            subset(parts[0], np.flatnonzero(~held)),
            subset(parts[0], np.flatnonzero(held)),
        )

        def accuracy(rate: float) -> float:
            scores = embed(_trained(inference, kept, classes, rate, recipe, seed, verbose), judged)
            reached = top_k_accuracy(scores, judged.labels)
            say(f"rate {rate:g}: {reached:.1%} of the held-out labels")
            return reached

        tried = tried_rates(recipe.rates, accuracy, recipe.widen)
        best = best_rate(tried)
    results = []
    for number, part in enumerate(parts):
        results.append(
            top_1_and_5(
                embed(
                    _trained(inference, part, classes, best, recipe, seed + number, verbose), test
                ),
                test.labels,
            )
        )
        say(f"seed {seed + number}: {results[-1]['top1']:.1%}")
    each = [result["top1"] for result in results]
    return {
        "top1": float(np.mean(each)),
        "top5": None
        if results[0]["top5"] is None
        else float(np.mean([result["top5"] for result in results])),
        "top1_std": float(np.std(each, ddof=1)) if len(each) > 1 else None,
        "top1_each": each,
        "fraction": recipe.fraction,
        "labels": len(parts[0]),
        "rate": best,
        "held_out_accuracy": {f"{rate:g}": value for rate, value in tried.items()},
        "epochs": recipe.epochs,
        "batch_size": batch_size_for(len(parts[0]), recipe.batch_size),
    }


class Classifier(keras.Model):
    """Crops, flips and classifies (pixels, params) in `fit`."""

    def __init__(self, crops: keras.layers.Layer, network: keras.Model):
        super().__init__(dtype="float32")  # no lower precision would hold the crops' parameters
        self.crops, self.network = crops, network
        self.built = True

    def call(self, inputs, training=False):
        return self.network(self.crops(*inputs), training=training)


def _trained(
    inference, images: Images, classes: int, rate: float, recipe: TuneRecipe, seed: int, verbose
) -> keras.Model:
    """A model from uint8 images of any size to logits `[N, classes]`, trained on `images`."""
    keras.utils.set_random_seed(seed)
    resize, normalise, encoder = split_inference_model(inference)
    copy = keras.models.clone_model(encoder)
    if not recipe.from_scratch:
        copy.set_weights(encoder.get_weights())
    size, batch_size = encoder.input_shape[1], batch_size_for(len(images), recipe.batch_size)
    crops = crop_layer(images, size)
    batches = labelled_batches(images, size, batch_size, seed)
    if recipe.from_scratch:
        pixels, params, _ = next(iter(batches))
        initialize_from_data([copy], normalise(crops(pixels, params)[:_DATA_INIT_IMAGES]))
    linear = keras.layers.Dense(classes, dtype="float32", name="classifier")
    pixels = keras.Input((size, size, 3))
    network = keras.Model(pixels, linear(copy(normalise(pixels))))
    labels, steps = tf.constant(images.labels, tf.int64), len(images) // batch_size
    model = Classifier(crops, network)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps * recipe.epochs)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    stream = batches.map(
        lambda pixels, params, indices: ((pixels, params), tf.gather(labels, indices))
    )
    model.fit(stream, epochs=recipe.epochs, steps_per_epoch=steps, shuffle=False, verbose=verbose)
    uint8 = keras.Input((None, None, 3), dtype="uint8")
    return keras.Model(uint8, linear(copy(normalise(resize(uint8)), training=False)))
