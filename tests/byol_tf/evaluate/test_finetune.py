"""Fine-tuning, the supervised baseline, and the search for a learning rate."""

import logging
import math

import keras
import numpy as np
import pytest

from byol_tf.errors import ProtocolError
from byol_tf.evaluate.finetune import TuneRecipe, best_rate, search_rates, tune_protocol
from byol_tf.models.inference import inference_model, split_inference_model
from byol_tf.models.networks import build_encoder
from pipelines.sources import ArrayImages


def stripes(count: int, seed: int) -> ArrayImages:
    """Images of three classes: vertical, horizontal and no stripes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    wave = np.sign(np.sin(np.arange(16) * 1.6 + rng.uniform(0, 6, (count, 1))))
    vertical = np.broadcast_to(wave[:, None, :], (count, 16, 16))
    horizontal = np.broadcast_to(wave[:, :, None], (count, 16, 16))
    gray = np.select(
        [labels[:, None, None] == 0, labels[:, None, None] == 1], [vertical, horizontal], 0.0
    )
    pixels = 128 + 60 * gray + rng.normal(0, 10, (count, 16, 16))
    return ArrayImages(
        np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=3), labels
    )


@pytest.fixture(scope="module")
def inference() -> keras.Model:
    keras.utils.set_random_seed(0)
    return inference_model(build_encoder("convnet", 16, width=0.25), 16, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("from_scratch", [False, pytest.param(True, marks=pytest.mark.long)])
def test_tuning_learns_and_leaves_the_encoder_unchanged(inference, from_scratch):
    before = [array.copy() for array in inference.get_weights()]
    recipe = TuneRecipe(from_scratch, (1e-2,), fraction=0.5, seeds=2, epochs=6, batch_size=32)
    result = tune_protocol(inference, stripes(240, 0), stripes(120, 1), recipe, seed=0)
    for old, new in zip(before, inference.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(result["top1_each"]) == 2
    assert result["top1"] == pytest.approx(np.mean(result["top1_each"]))
    assert result["top1_std"] == pytest.approx(abs(np.subtract(*result["top1_each"])) / np.sqrt(2))
    assert (result["labels"], result["rate"]) == (120, 1e-2)
    assert (result["held_out_accuracy"], result["top5"]) == ({}, None)
    assert result["top1"] > 0.6  # chance is a third


@pytest.mark.long
def test_only_fine_tuning_starts_at_the_encoders_weights(inference):
    """With a rate of nearly 0 weights stay as they were initialised.

    So two encoders give different figures when fine-tuned, and the same one from scratch.
    """
    blind = keras.models.clone_model(inference)
    blind.set_weights([np.zeros_like(array) for array in inference.get_weights()])
    train, test = stripes(60, 0), stripes(90, 1)

    def accuracy(encoder: keras.Model, from_scratch: bool) -> float:
        recipe = TuneRecipe(from_scratch, (1e-12,), seeds=1, epochs=1, batch_size=30)
        result = tune_protocol(encoder, train, test, recipe, seed=4)
        assert result["top1_std"] is None
        return result["top1"]

    # features of zeros: one class always wins
    frequencies = np.bincount(test.labels, minlength=3) / 90
    assert np.isclose(frequencies, accuracy(blind, False)).any()
    assert accuracy(blind, True) == accuracy(inference, True)


@pytest.mark.long
def test_rate_is_chosen_on_training_labels(inference, caplog):
    train, test = stripes(150, 0), stripes(60, 1)
    recipe = TuneRecipe(True, (1e-12, 1e-2), seeds=1, epochs=6, batch_size=32)
    wrong_labels = ArrayImages(test.batch(np.arange(60)), (test.labels + 1) % 3)
    with caplog.at_level(logging.INFO, "byol_tf"):
        result = tune_protocol(inference, train, wrong_labels, recipe, 0)
    assert result["rate"] == 1e-2
    assert result["held_out_accuracy"]["0.01"] > 0.5 > result["top1"]
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("byol_tf")]
    assert [line.split(":")[0] for line in logged] == ["rate 1e-12", "rate 0.01", "seed 0"]


def test_model_of_another_form_is_refused():
    images = keras.Input((None, None, 3), dtype="uint8")
    other = keras.Model(
        images, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    )
    with pytest.raises(
        ProtocolError, match=r"whose weights can be trained: a run, or the encoder\.keras"
    ):
        split_inference_model(other)


def peak_at(rate: float):
    """Accuracy falls with the ratio to this rate."""
    return lambda tried: 1.0 - abs(math.log(tried / rate)) / 100


@pytest.mark.parametrize(
    ("peak", "widened"),
    [
        (1e-2, []),  # within: nothing more
        (3e-2, [9e-2]),  # the largest was the best: one more, which is worse
        (0.1, [9e-2, 0.27]),
        (1e6, [9e-2, 0.27, 0.81]),  # three at most
        (3e-3, [1e-3]),
        (1e-9, [1e-3, 1e-3 / 3, 1e-3 / 9]),
    ],
)
def test_search_widens_while_an_end_is_best(peak, widened):
    accuracies = search_rates((3e-3, 1e-2, 3e-2), peak_at(peak), widen=True)
    assert list(accuracies)[:3] == [3e-3, 1e-2, 3e-2]
    assert list(accuracies)[3:] == pytest.approx(widened)
    assert best_rate(accuracies) == min(accuracies, key=lambda rate: abs(math.log(rate / peak)))


def test_search_without_widening_tries_the_given_rates():
    assert list(search_rates((1e-3, 1e-2), peak_at(1.0), widen=False)) == [1e-3, 1e-2]


def test_first_of_equally_accurate_rates_is_best():
    assert best_rate(search_rates((1e-3, 1e-2), lambda rate: 0.5, widen=True)) == 1e-3
