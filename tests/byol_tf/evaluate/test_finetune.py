"""Fine-tuning begins at the encoder's weights, the baseline doesn't; neither changes the encoder
that it was given."""

import math

import keras
import numpy as np
import pytest

from byol_tf.errors import ProtocolError
from byol_tf.evaluate.finetune import TuneRecipe, best_rate, tried_rates, tune_protocol
from byol_tf.models.inference import inference_model, split_inference_model
from byol_tf.models.networks import build_encoder
from pipelines.sources import ArrayImages


def stripes(count: int, seed: int) -> ArrayImages:
    """Upright, lying and no stripes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    wave = np.sign(np.sin(np.arange(16) * 1.6 + draw.uniform(0, 6, (count, 1))))
    upright, lying = (
        np.broadcast_to(wave[:, None, :], (count, 16, 16)),
        np.broadcast_to(wave[:, :, None], (count, 16, 16)),
    )
    grey = np.select(
        [labels[:, None, None] == 0, labels[:, None, None] == 1], [upright, lying], 0.0
    )
    pixels = 128 + 60 * grey + draw.normal(0, 10, (count, 16, 16))
    return ArrayImages(
        np.repeat(np.clip(pixels, 0, 255).astype(np.uint8)[..., None], 3, axis=3), labels
    )


@pytest.fixture(scope="module")
def inference() -> keras.Model:
    keras.utils.set_random_seed(0)
    return inference_model(build_encoder("convnet", 16, width=0.25), 16, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("from_scratch", [False, pytest.param(True, marks=pytest.mark.long)])
def test_it_learns_and_leaves_the_encoder_alone(inference, from_scratch):
    before = [array.copy() for array in inference.get_weights()]
    recipe = TuneRecipe(from_scratch, (1e-2,), fraction=0.5, seeds=2, epochs=6, batch_size=32)
    result = tune_protocol(inference, stripes(240, 0), stripes(120, 1), recipe, seed=0)
    for old, new in zip(before, inference.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(result["top1_each"]) == 2
    assert result["top1"] == pytest.approx(np.mean(result["top1_each"]))
    assert result["top1_std"] == pytest.approx(abs(np.subtract(*result["top1_each"])) / np.sqrt(2))
    assert (result["labels"], result["rate"], result["held_out_accuracy"], result["top5"]) == (
        120,
        1e-2,
        {},
        None,
    )
    assert result["top1"] > 0.6  # chance is a third


@pytest.mark.long
def test_only_fine_tuning_begins_at_the_encoders_weights(inference):
    """With a rate of nearly 0 the weights stay where they began, so two encoders give two
    fine-tuned figures and one baseline's."""
    blind = keras.models.clone_model(inference)
    blind.set_weights([np.zeros_like(array) for array in inference.get_weights()])
    train, test = stripes(60, 0), stripes(90, 1)

    def accuracy(encoder, from_scratch):
        recipe = TuneRecipe(from_scratch, (1e-12,), seeds=1, epochs=1, batch_size=30)
        result = tune_protocol(encoder, train, test, recipe, seed=4)
        assert result["top1_std"] is None
        return result["top1"]

    shares = np.bincount(test.labels, minlength=3) / 90  # features of zeros: one class always wins
    assert np.isclose(shares, accuracy(blind, False)).any()
    assert accuracy(blind, True) == accuracy(inference, True)


@pytest.mark.long
def test_the_rate_is_chosen_on_training_labels(inference):
    train, test = stripes(150, 0), stripes(60, 1)
    recipe = TuneRecipe(True, (1e-12, 1e-2), seeds=1, epochs=6, batch_size=32)
    lines = []
    result = tune_protocol(
        inference,
        train,
        ArrayImages(test.batch(np.arange(60)), (test.labels + 1) % 3),
        recipe,
        0,
        lines.append,
    )
    assert result["rate"] == 1e-2
    assert (
        result["held_out_accuracy"]["0.01"] > 0.5 > result["top1"]
    )  # the wrong test labels had no say
    assert [line.split(":")[0] for line in lines] == ["rate 1e-12", "rate 0.01", "seed 0"]


def test_a_model_of_another_form_is_refused():
    images = keras.Input((None, None, 3), dtype="uint8")
    other = keras.Model(
        images, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    )
    with pytest.raises(
        ProtocolError, match=r"whose weights can be trained: a run, or the encoder\.keras"
    ):
        split_inference_model(other)


def peak_at(rate: float):
    """Accuracy falls with the distance from this rate, in factors."""
    return lambda tried: 1.0 - abs(math.log(tried / rate)) / 100


@pytest.mark.parametrize(
    ("peak", "more"),
    [
        (1e-2, []),  # within: nothing more
        (3e-2, [9e-2]),  # the largest was the best: one more, which is worse
        (0.1, [9e-2, 0.27]),
        (1e6, [9e-2, 0.27, 0.81]),  # three at most
        (3e-3, [1e-3]),
        (1e-9, [1e-3, 1e-3 / 3, 1e-3 / 9]),
    ],
)
def test_it_widens_where_an_end_is_the_best(peak, more):
    tried = tried_rates((3e-3, 1e-2, 3e-2), peak_at(peak), widen=True)
    assert list(tried)[:3] == [3e-3, 1e-2, 3e-2]
    assert list(tried)[3:] == pytest.approx(more)
    assert best_rate(tried) == min(tried, key=lambda rate: abs(math.log(rate / peak)))


def test_rates_that_were_asked_for_are_all_that_is_tried():
    assert list(tried_rates((1e-3, 1e-2), peak_at(1.0), widen=False)) == [1e-3, 1e-2]


def test_of_equals_the_first_is_taken():
    assert best_rate(tried_rates((1e-3, 1e-2), lambda rate: 0.5, widen=True)) == 1e-3
