"""Fine-tuning, the supervised baseline, and the search for a learning rate."""

import logging
import math
import re

import keras
import numpy as np
import pytest

from byol_tf.errors import ProtocolError, WorkKept
from byol_tf.evaluate import finetune
from byol_tf.evaluate.crops import CROP_AND_FLIP, NO_AUGMENTATION, even_batch_size
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.few_labels import fit_few_labels
from byol_tf.evaluate.finetune import (
    SEMI_SUPERVISED,
    STL10,
    TuneRecipe,
    best_rate,
    search_rates,
    tune_protocol,
)
from byol_tf.models.inference import inference_model, split_inference_model
from byol_tf.models.networks import build_encoder
from pipelines.policy import preset
from pipelines.sources import ArrayImages, subset


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


@pytest.mark.parametrize(
    ("from_scratch", "normalization"),
    [
        (False, "batch"),
        pytest.param(False, "data_init", marks=pytest.mark.long),
        pytest.param(True, "batch", marks=pytest.mark.long),
        (True, "data_init"),
    ],
)
def test_crops_may_be_smaller_than_whole_images(from_scratch, normalization):
    """The classifier learns from crops of 8 px and encodes images at 16, as the encoder does."""
    encoder = build_encoder("convnet", 8, width=0.25, normalization=normalization)
    inference = inference_model(encoder, 16, (0.5,) * 3, (0.5,) * 3)
    recipe = TuneRecipe(from_scratch, (1e-2,), seeds=1, epochs=(6,), batch_size=32)
    classifiers: list[keras.Model] = []
    result = tune_protocol(
        inference, stripes(240, 0), stripes(120, 1), recipe, 0, 8, on_trained=classifiers.append
    )
    assert result["top1"] > 0.7  # by chance 0.5
    (classifier,) = classifiers
    assert classifier.get_layer("centre").height == 16


@pytest.mark.parametrize("from_scratch", [False, pytest.param(True, marks=pytest.mark.long)])
def test_tuning_learns_and_leaves_the_encoder_unchanged(inference, from_scratch):
    before = [array.copy() for array in inference.get_weights()]
    recipe = TuneRecipe(from_scratch, (1e-2,), fraction=0.5, seeds=2, epochs=(6,), batch_size=32)
    result = tune_protocol(inference, stripes(240, 0), stripes(120, 1), recipe, seed=0)
    for old, new in zip(before, inference.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(result["top1_each"]) == 2
    assert result["top1"] == pytest.approx(np.mean(result["top1_each"]))
    assert result["top1_std"] == pytest.approx(abs(np.subtract(*result["top1_each"])) / np.sqrt(2))
    assert (result["labels"], result["rate"]) == (120, 1e-2)
    assert (result["held_out_accuracy"], result["top5"]) == ({}, None)
    assert result["top1"] > 0.6  # chance is a third
    curve = result["curve"]
    assert [(row["seed"], row["epoch"]) for row in curve] == [
        (seed, epoch) for seed in (0, 1) for epoch in range(1, 7)
    ]
    assert curve[5]["loss"] < curve[0]["loss"]
    assert 0.6 < curve[5]["accuracy"] <= 1.0


def test_samples_are_drawn_as_their_seeds_come(inference):
    recipe = TuneRecipe(False, (1e-2,), fraction=0.5, seeds=10**8, epochs=(1,), batch_size=32)

    def stop(classifier):
        raise KeyboardInterrupt

    with pytest.raises(WorkKept, match="1 of 100,000,000 seeds finished"):
        tune_protocol(inference, stripes(60, 0), stripes(30, 1), recipe, seed=0, on_trained=stop)


@pytest.mark.parametrize("freeze", [False, True])
def test_frozen_batch_norm_stays_as_it_is(inference, freeze):
    """Also of an encoder whose batch normalisation was frozen in pre-training."""
    trained = []
    *_, encoder = split_inference_model(inference)
    for layer in encoder.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    try:
        recipe = TuneRecipe(
            False, (1e-2,), seeds=1, epochs=(1,), batch_size=32, freeze_batch_norm=freeze
        )
        tune_protocol(
            inference, stripes(64, 0), stripes(32, 1), recipe, 0, on_trained=trained.append
        )
    finally:
        for layer in encoder.layers:
            layer.trainable = True
    (classifier,) = trained
    for layer in encoder.layers:
        tuned = classifier.get_layer(encoder.name).get_layer(layer.name).get_weights()
        for one, other in zip(layer.get_weights(), tuned, strict=True):
            kept = freeze and isinstance(layer, keras.layers.BatchNormalization)
            assert np.array_equal(one, other) == kept, layer.name


@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2)])
def test_logistic_head_starts_as_the_regression_on_frozen_features(inference, classes):
    """With a rate of nearly 0 it stays so; a class without an image is never predicted."""
    photos, test = stripes(90, 0), stripes(60, 1)
    train = subset(photos, np.flatnonzero(np.isin(photos.labels, classes)))
    trained = []
    recipe = TuneRecipe(
        False, (1e-12,), seeds=1, epochs=(1,), head="logistic", freeze_batch_norm=True
    )
    tune_protocol(inference, train, test, recipe, 3, on_trained=trained.append)
    features = np.concatenate([embed(inference, train), embed(inference, test)])
    scaled = (features - features[: len(train)].mean(0)) / features[: len(train)].std(0)
    model = fit_few_labels(scaled[: len(train)].astype(np.float64), train.labels, 3)
    expected = model.decision_function(scaled[len(train) :])
    logits = embed(trained[0], test)
    if len(classes) == 2:
        np.testing.assert_allclose(logits[:, 1], -10.0)
        logits = logits[:, 2] - logits[:, 0]
    np.testing.assert_allclose(logits, expected, atol=1e-3)


def test_logistic_head_refuses_labels_that_would_take_hours(inference, monkeypatch):
    monkeypatch.setattr(finetune, "_LARGEST_FIT", 60 * 32 * 3 - 1)
    recipe = TuneRecipe(False, (1e-3,), seeds=1, epochs=(1,), head="logistic")
    with pytest.raises(ProtocolError, match=r"received 60 x \d+ x 3. Use --head random"):
        tune_protocol(inference, stripes(60, 0), stripes(30, 1), recipe, 0)


@pytest.mark.long
def test_only_fine_tuning_starts_at_the_encoders_weights(inference):
    """With a rate of nearly 0 weights stay as they were initialised.

    So two encoders give different figures when fine-tuned, and the same one from scratch.
    """
    blind = keras.models.clone_model(inference)
    blind.set_weights([np.zeros_like(array) for array in inference.get_weights()])
    train, test = stripes(60, 0), stripes(90, 1)

    def accuracy(encoder: keras.Model, from_scratch: bool) -> float:
        recipe = TuneRecipe(from_scratch, (1e-12,), seeds=1, epochs=(1,), batch_size=30)
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
    recipe = TuneRecipe(True, (1e-12, 1e-2), seeds=1, epochs=(6,), batch_size=32)
    wrong_labels = ArrayImages(test.batch(np.arange(60)), (test.labels + 1) % 3)
    with caplog.at_level(logging.INFO, "byol_tf"):
        result = tune_protocol(inference, train, wrong_labels, recipe, 0)
    assert result["rate"] == 1e-2
    assert result["held_out_accuracy"]["0.01"] > 0.5 > result["top1"]
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("byol_tf")]
    assert [line.split(":")[0] for line in logged] == [
        "rate 1e-12, 6 epochs",
        "rate 0.01, 6 epochs",
        "seed 0",
    ]


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


def test_settings_of_the_stl10_papers_authors():
    """zhihua-zhang/BYOL: Adam, 1e-4 x 1024 / 128, decay 1e-6, 25 epochs of five steps."""
    recipe = TuneRecipe(False, **STL10)
    assert (recipe.optimizer, recipe.schedule, recipe.weight_decay) == ("adam", "constant", 1e-6)
    assert (recipe.rates, recipe.widen) == ((1e-4 * 1024 / 128,), False)
    assert recipe.policy == preset("none")[0]
    assert recipe.epochs == (25,)
    assert 5000 // even_batch_size(5000, recipe.batch_size) == 5


def test_settings_of_the_byol_papers_semi_supervised_protocol():
    """Appendix C.1."""
    recipe = TuneRecipe(False, **SEMI_SUPERVISED)
    assert (recipe.optimizer, recipe.batch_size, recipe.weight_decay) == ("sgd", 1024, 0.0)
    assert recipe.rates == (0.005, 0.01, 0.02, 0.05, 0.1)
    assert recipe.epochs == (30, 50)
    assert (recipe.policy, recipe.head) == (CROP_AND_FLIP, "random")
    assert recipe.test_crop


@pytest.mark.long
def test_rate_and_epochs_are_chosen_on_held_out_labels(inference, caplog):
    recipe = TuneRecipe(
        False, (1e-12, 0.2), seeds=1, epochs=(1, 4), batch_size=30, optimizer="sgd", test_crop=True
    )
    with caplog.at_level(logging.INFO, "byol_tf"):
        result = tune_protocol(inference, stripes(150, 0), stripes(60, 1), recipe, seed=0)
    pattern = r"rate (\S+), (\d) epochs: (\S+)% of the held-out labels"
    tried = [match.groups() for line in caplog.messages if (match := re.match(pattern, line))]
    accuracies = {(float(rate), int(epochs)): float(accuracy) for rate, epochs, accuracy in tried}
    assert set(accuracies) == {(rate, epochs) for rate in (1e-12, 0.2) for epochs in (1, 4)}
    chosen = result["rate"], result["epochs"]
    assert accuracies[chosen] == max(accuracies.values()) > 60.0
    assert set(result["held_out_accuracy"]) == {"1e-12", "0.2"}
    assert len(result["curve"]) == chosen[1]


def test_constant_rate_decay_and_no_augmentation_equal_numpy():
    """A linear encoder, so that each step is known: Adam with L2 on images as they are."""
    pixels = keras.Input((4, 4, 3))
    encoder = keras.Model(pixels, keras.layers.Flatten()(pixels), name="flat")
    inference = inference_model(encoder, 4, (0.5,) * 3, (0.5,) * 3)
    rng = np.random.default_rng(0)
    train = ArrayImages(rng.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8), np.arange(12) % 3)
    recipe = TuneRecipe(
        False,
        (0.01,),
        seeds=1,
        epochs=(3,),
        batch_size=12,
        schedule="constant",
        weight_decay=0.3,
        policy=NO_AUGMENTATION,
    )
    history = tune_protocol(inference, train, train, recipe, seed=0)["curve"]
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(3)
    layer.build((None, 48))
    weights = [array.astype(np.float64) for array in layer.get_weights()]
    first, second = ([np.zeros_like(w) for w in weights] for _ in range(2))
    x = train.batch(np.arange(12)).reshape(12, 48) / 127.5 - 1.0
    for step, row in enumerate(history, start=1):
        logits = x @ weights[0] + weights[1]
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert row["loss"] == pytest.approx(
            -np.log(softmax[np.arange(12), train.labels]).mean(), rel=1e-3
        )
        error = (softmax - np.eye(3)[train.labels]) / 12
        for index, gradient in enumerate((x.T @ error, error.sum(axis=0))):
            gradient = gradient + 0.3 * weights[index]
            first[index] = 0.9 * first[index] + 0.1 * gradient
            second[index] = 0.999 * second[index] + 0.001 * gradient**2
            rate = 0.01 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            weights[index] -= rate * first[index] / (np.sqrt(second[index]) + 1e-7)
