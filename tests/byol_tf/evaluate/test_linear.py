"""The BYOL paper's linear protocol: heads trained together, against each alone and scikit-learn."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.linear_model import LogisticRegression

from byol_tf.evaluate.features import embed
from byol_tf.evaluate.linear import RATES, LinearRecipe, linear_protocol, train_heads
from byol_tf.models.inference import inference_model
from byol_tf.models.networks import build_encoder
from byol_tf.runs.splits import stratified_folds
from pipelines.sources import ArrayImages, open_source, subset
from tests.helpers.clusters import gaussian_clusters


def identity(inputs):
    return inputs


def fixed_batches(features: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Endless batches of features in their order, with their indices."""
    return (
        tf.data.Dataset.from_tensor_slices((features, np.arange(len(features))))
        .batch(batch_size)
        .repeat()
    )


def nesterov(features, labels, seen, classes, rate, batch_size, epochs):
    """The kernel of one head in NumPy, by the definition.

    Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning", in
    the form that Keras documents.
    """
    kernel = np.zeros((features.shape[1], classes))
    velocity, steps, step = np.zeros_like(kernel), len(labels) // batch_size * epochs, 0
    for _ in range(epochs):
        for first in range(0, len(labels), batch_size):
            rows = [row for row in range(first, first + batch_size) if seen[row]]
            logits = features[rows] @ kernel
            softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
            softmax /= softmax.sum(axis=1, keepdims=True)
            gradient = features[rows].T @ (softmax - np.eye(classes)[labels[rows]]) / len(rows)
            decayed = rate * batch_size / 256 * (1.0 + np.cos(np.pi * step / steps)) / 2.0
            velocity = 0.9 * velocity - decayed * gradient
            kernel, step = kernel + 0.9 * velocity - decayed * gradient, step + 1
    return kernel


def test_each_head_equals_sgd_of_it_alone():
    features, labels = gaussian_clusters(48, 0)
    # the reference's bias is the last row of its kernel
    with_bias = np.concatenate([features, np.ones((48, 1))], axis=1)
    held_out = stratified_folds(labels, 0)[0]
    rates, seen = (0.5, 10.0, 0.5), np.stack([~held_out, ~held_out, np.ones(48, bool)], axis=1)
    heads = train_heads(
        identity, 12, fixed_batches(features, 16), labels, seen, 5, rates, 16, epochs=3
    )
    for number, rate in enumerate(rates):
        expected = nesterov(with_bias, labels, seen[:, number], 5, rate, 16, epochs=3)
        np.testing.assert_allclose(
            heads.logits(features, number), with_bias @ expected, rtol=1e-3, atol=1e-4
        )


def test_diverging_rate_does_not_affect_others():
    features, labels = gaussian_clusters(64, 0)
    seen = np.ones((64, 2), bool)
    alone = train_heads(
        identity, 12, fixed_batches(features, 32), labels, seen[:, :1], 5, (1.0,), 32, 2
    )
    together = train_heads(
        identity, 12, fixed_batches(features, 32), labels, seen, 5, (1.0, 1e30), 32, 2
    )
    np.testing.assert_allclose(
        together.logits(features, 0), alone.logits(features, 0), rtol=1e-5, atol=1e-6
    )


def regression(train, labels, test, test_labels):
    """scikit-learn's accuracy, nearly without regularisation."""
    return LogisticRegression(C=1e3, max_iter=5000).fit(train, labels).score(test, test_labels)


def test_accuracy_equals_logistic_regression():
    """To half a point, on the same frozen features without crops."""
    (train, labels), (test, test_labels) = gaussian_clusters(1000, 0), gaussian_clusters(4000, 1)
    seen = np.ones((1000, 1), bool)
    heads = train_heads(
        identity, 12, fixed_batches(train, 250), labels, seen, 5, (0.25,), 250, epochs=40
    )
    accuracy = np.mean(heads.logits(test, 0).argmax(axis=1) == test_labels)
    assert abs(accuracy - regression(train, labels, test, test_labels)) <= 0.005
    assert 0.5 < accuracy < 0.9


def test_accuracy_on_photos_equals_logistic_regression(photos):
    """On features of CIFAR-10 photos by an untrained network."""
    inference = inference_model(
        build_encoder("convnet", 32, width=0.5), 32, (0.5,) * 3, (0.25,) * 3
    )
    splits = []
    for split in ("train", "test"):
        files = [
            file
            for folder in sorted((photos / "cifar10" / split).iterdir())
            for file in sorted(folder.iterdir())[:200]
        ]
        pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        order = np.random.default_rng(0).permutation(len(files))
        splits.append(ArrayImages(pixels[order], np.repeat(np.arange(10), 200)[order]))
    train, test = (embed(inference, images) for images in splits)
    mean, std = train.mean(axis=0), train.std(axis=0)
    train, test = (train - mean) / std, (test - mean) / std
    seen = np.ones((2000, 1), bool)
    heads = train_heads(
        identity,
        train.shape[1],
        fixed_batches(train, 500),
        splits[0].labels,
        seen,
        10,
        (0.25,),
        500,
        epochs=300,
    )
    accuracy = np.mean(heads.logits(test, 0).argmax(axis=1) == splits[1].labels)
    assert abs(accuracy - regression(train, splits[0].labels, test, splits[1].labels)) <= 0.005
    assert accuracy > 0.2


@pytest.fixture(scope="module")
def digits():
    source = open_source(source="digits")
    return subset(source.train, np.arange(300)), source.test


def test_rates_are_the_papers_at_a_batch_of_256():
    """deepmind-research byol/utils/schedules.py scales its base rate of 0.2 by batch / 256."""
    assert RATES[:5] == (0.05, 0.1, 0.2, 0.3, 0.4)
    features, labels = gaussian_clusters(64, 0)
    seen = np.ones((64, 1), bool)
    heads = train_heads(identity, 12, fixed_batches(features, 64), labels, seen, 5, (0.2,), 64, 1)
    with_bias = np.concatenate([features, np.ones((64, 1))], axis=1)
    softmax = np.full((64, 5), 0.2)
    gradient = with_bias.T @ (softmax - np.eye(5)[labels]) / 64
    step = 1.9 * 0.2 * 64 / 256  # Nesterov's first step is 1 + momentum times the gradient
    np.testing.assert_allclose(
        heads.logits(features, 0), with_bias @ (-step * gradient), rtol=1e-3, atol=1e-5
    )


def test_test_images_are_the_centre_of_224_in_256(digits):
    """A border that the papers' crop cuts off can't change a figure."""
    train, test = digits
    images = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 128.0, -1.0)(keras.layers.Resizing(8, 8)(images))
    inference = keras.Model(images, keras.layers.Flatten()(pixels))
    test = subset(test, np.arange(64))
    bordered = test.batch(np.arange(64)).copy()
    for edge in (bordered[:, :2], bordered[:, -2:], bordered[:, :, :2], bordered[:, :, -2:]):
        edge[...] = 255
    recipe = LinearRecipe(epochs=1, batch_size=60, rates=(1.0,))
    results = [
        linear_protocol(inference, 32, subset(train, np.arange(60)), split, recipe, seed=0)
        for split in (test, ArrayImages(bordered, test.labels))
    ]
    assert results[0] == results[1]


def test_protocol_chooses_a_rate_and_leaves_the_encoder_unchanged(digits):
    train, test = digits
    images = keras.Input((None, None, 3), dtype="uint8")
    pixels = keras.layers.Rescaling(1 / 128.0, -1.0)(keras.layers.Resizing(8, 8)(images))
    inference = keras.Model(images, keras.layers.Dense(64)(keras.layers.Flatten()(pixels)))
    before = [array.copy() for array in inference.get_weights()]
    result = linear_protocol(
        inference,
        32,
        train,
        test,
        LinearRecipe(epochs=20, batch_size=128, rates=(1e30, 1.0)),
        seed=0,
    )
    for old, new in zip(before, inference.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert result["rate"] == 1.0
    assert result["held_out_accuracy"]["1e+30"] < result["held_out_accuracy"]["1"]
    assert 0.2 < result["top1"] <= result["top5"] <= 1.0
    assert (result["epochs"], result["batch_size"]) == (20, 100)
