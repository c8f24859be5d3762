"""Tests of the fused batch normalisation against Keras' own layer and NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import BatchNorm
from tests.helpers.layer_harness import check_layer, gradients
from tests.reference import networks as reference

SHAPES = [(6, 5, 4, 3), (16, 3)]


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 3.0, shape).astype(np.float32)


def pair(shape: tuple[int, ...], **options) -> list[keras.layers.Layer]:
    """Returns our layer and Keras' with equal variables."""
    layers = [
        layer_class(momentum=0.9, epsilon=1e-5, **options)
        for layer_class in (BatchNorm, keras.layers.BatchNormalization)
    ]
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.build(shape)
    for one, other in zip(layers[0].variables, layers[1].variables, strict=True):
        value = rng.random(one.shape) + 0.5
        one.assign(value)
        other.assign(value)
    return layers


@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstKeras:
    def test_outputs_gradients_and_statistics_equal_keras(self, shape):
        ours, theirs = pair(shape)
        for name, one, other in zip(
            ("outputs", "inputs", "gamma", "beta"),
            gradients(ours, inputs(shape)),
            gradients(theirs, inputs(shape)),
            strict=True,
        ):
            np.testing.assert_allclose(
                one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max(), err_msg=name
            )
        for one, other in zip(ours.variables, theirs.variables, strict=True):
            assert one.name == other.name
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, err_msg=one.name)

    def test_outputs_and_statistics_equal_numpy(self, shape):
        ours, _ = pair(shape)
        gamma, beta, moving_mean, moving_variance = (
            variable.numpy() for variable in ours.variables
        )
        expected, mean, variance = reference.batch_norm(inputs(shape), gamma, beta, 1e-5)
        np.testing.assert_allclose(ours(inputs(shape), training=True).numpy(), expected, atol=2e-5)
        np.testing.assert_allclose(
            ours.moving_mean.numpy(), 0.9 * moving_mean + 0.1 * mean, rtol=1e-5
        )
        np.testing.assert_allclose(
            ours.moving_variance.numpy(), 0.9 * moving_variance + 0.1 * variance, rtol=1e-5
        )

    def test_inference_uses_moving_statistics_unchanged(self, shape):
        ours, theirs = pair(shape)
        before = [variable.numpy() for variable in ours.variables]
        np.testing.assert_allclose(
            ours(inputs(shape), training=False), theirs(inputs(shape), training=False), rtol=1e-6
        )
        ours.trainable = False
        np.testing.assert_allclose(
            ours(inputs(shape), training=True), theirs(inputs(shape), training=False), rtol=1e-6
        )
        for variable, value in zip(ours.variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value)

    def test_bfloat16_keeps_float32_statistics(self, shape):
        ours, theirs = pair(shape, dtype="mixed_bfloat16")
        x = tf.cast(inputs(shape), tf.bfloat16)
        outputs, expected = ours(x, training=True), theirs(x, training=True)
        assert outputs.dtype == tf.bfloat16
        np.testing.assert_allclose(
            tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32), atol=0.03
        )
        assert {variable.dtype for variable in ours.variables} == {"float32"}
        # Statistics computed in bfloat16 would be off by a few thousandths.
        _, mean, variance = reference.batch_norm(tf.cast(x, tf.float64).numpy(), 1.0, 0.0, 1e-5)
        start = pair(shape)[0]
        np.testing.assert_allclose(
            ours.moving_mean.numpy(), 0.9 * start.moving_mean.numpy() + 0.1 * mean, rtol=2e-5
        )
        np.testing.assert_allclose(
            ours.moving_variance.numpy(),
            0.9 * start.moving_variance.numpy() + 0.1 * variance,
            rtol=2e-5,
        )

    def test_xla_gives_the_same_numbers(self, shape):
        ours, theirs = pair(shape)
        compiled = tf.function(lambda x: theirs(x, training=True), jit_compile=True)
        fused = tf.function(lambda x: ours(x, training=True), jit_compile=True)
        np.testing.assert_allclose(
            fused(tf.constant(inputs(shape))), compiled(tf.constant(inputs(shape))), atol=1e-5
        )
        np.testing.assert_allclose(
            ours.moving_variance.numpy(), theirs.moving_variance.numpy(), rtol=1e-5
        )

    @pytest.mark.parametrize("disabled", [("center",), ("scale",), ("center", "scale")])
    def test_without_offset_or_scale(self, shape, disabled):
        ours, theirs = pair(shape, **dict.fromkeys(disabled, False))
        np.testing.assert_allclose(
            ours(inputs(shape), training=True), theirs(inputs(shape), training=True), atol=1e-5
        )
        for one, other in zip(ours.variables, theirs.variables, strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, err_msg=one.name)


def test_batch_of_one_is_its_own_mean():
    layer = BatchNorm()
    np.testing.assert_allclose(
        layer(np.full((1, 4), 7.0, np.float32), training=True), 0.0, atol=1e-6
    )
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9, rtol=1e-6)


def test_defaults_are_the_papers():
    layer = BatchNorm()
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_keeps_every_layers_promises(shape, tmp_path):
    options = {"momentum": 0.7, "epsilon": 1e-4, "name": "bn"}
    check_layer(BatchNorm, options, inputs(shape), tmp_path)


def test_batch_norm_is_not_synchronised_on_one_replica():
    assert not BatchNorm(name="bn").synchronized
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        assert not BatchNorm(name="bn").synchronized


@pytest.mark.parametrize("policy", ["bfloat16", "float16", "float64"])
def test_policies_without_float32_weights_use_keras_code(policy):
    """The kernel has no such gamma."""
    outputs = [
        layer_class(dtype=policy)(inputs(SHAPES[1]), training=True)
        for layer_class in (BatchNorm, keras.layers.BatchNormalization)
    ]
    assert outputs[0].dtype == policy
    np.testing.assert_allclose(*(tf.cast(x, tf.float32) for x in outputs), atol=0.05)
