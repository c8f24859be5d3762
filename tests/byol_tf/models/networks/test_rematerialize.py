"""Tests of rematerialization against the plain training pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import build_encoder, rematerialize


def images() -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).normal(size=(8, 16, 16, 3)), tf.float32)


def step(encoder: keras.Model, run):
    """Returns a compiled function: loss and gradients of a training pass."""

    @tf.function
    def compiled(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(tf.cast(run(images), tf.float32)))
        return [loss, *tape.gradient(loss, encoder.trainable_variables)]

    return compiled


@pytest.mark.parametrize(("name", "normalization"), [("resnet18", "batch"), ("convnet", "group")])
def test_gradients_and_statistics_equal_the_plain_pass(name, normalization):
    encoder = build_encoder(name, 16, width=0.5, normalization=normalization)
    start = encoder.get_weights()
    plain = step(encoder, lambda images: encoder(images, training=True))(images())
    updated = encoder.get_weights()
    assert normalization == "group" or any(
        not np.array_equal(a, b) for a, b in zip(start, updated, strict=True)
    )
    encoder.set_weights(start)
    recomputed = step(encoder, rematerialize(encoder))(images())
    for one, other in zip(updated, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)  # updated once, not twice
    for one, other in zip(plain, recomputed, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(one).max())


def test_each_convolution_runs_twice():
    encoder = build_encoder("resnet18", 16, width=0.25)

    def count(run) -> int:
        graph = step(encoder, run).get_concrete_function(images()).graph
        return sum(operation.type == "Conv2D" for operation in graph.get_operations())

    once = count(lambda images: encoder(images, training=True))
    assert once == 20
    assert count(rematerialize(encoder)) == 2 * once


def test_sequential_model_gives_the_same_outputs():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            *(keras.layers.Conv2D(4, 3) for _ in range(5)),
            keras.layers.Flatten(),
        ]
    )
    np.testing.assert_allclose(rematerialize(model)(images()), model(images()), rtol=1e-5)


class SubclassedModel(keras.Model):
    def call(self, images):
        return images


class StochasticDepth(keras.layers.Layer):
    """As ConvNeXt's in `keras.applications`, which has no seed generator."""

    def __init__(self, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate

    def call(self, x, training=False):
        return x


def calls_a_layer_often() -> keras.Model:
    inputs, shared = keras.Input((4,)), keras.layers.Dense(4)
    x = keras.layers.Dense(4)(inputs)
    for _ in range(4):
        x = shared(x)
    return keras.Model(inputs, keras.layers.Dense(4)(x), name="mine")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            SubclassedModel(name="mine"),
            r'expected a functional or Sequential encoder; received "mine"',
        ),
        (
            keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)], name="mine"
            ),
            '"mine" would use other random numbers',
        ),
        (
            keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(4), StochasticDepth(0.5)], name="mine"
            ),
            '"mine" would use other random numbers',
        ),
        (calls_a_layer_often(), r'expected an encoder that Keras can cut .*; "mine" it can\'t'),
    ],
)
def test_unsupported_models_are_errors(model, message):
    with pytest.raises(ValueError, match=message):
        rematerialize(model)
