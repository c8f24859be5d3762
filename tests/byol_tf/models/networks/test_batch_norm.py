"""The fused path against Keras' own layer and against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import BatchNorm, batch_norm
from tests.reference import networks as reference

SHAPES = [(6, 5, 4, 3), (16, 3)]


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 3.0, shape).astype(np.float32)


def pair(shape: tuple[int, ...], **options) -> list[keras.layers.Layer]:
    """Our layer and Keras' with the same numbers in them."""
    layers = [
        kind(momentum=0.9, epsilon=1e-5, **options)
        for kind in (BatchNorm, keras.layers.BatchNormalization)
    ]
    draw = np.random.default_rng(1)
    for layer in layers:
        layer.build(shape)
    for one, other in zip(layers[0].variables, layers[1].variables, strict=True):
        value = draw.random(one.shape) + 0.5
        one.assign(value)
        other.assign(value)
    return layers


def gradients(layer: keras.layers.Layer, x: np.ndarray) -> list[np.ndarray]:
    """Outputs, then the gradients by input, gamma and beta of a sum that weights each output
    differently."""
    x = tf.constant(x)
    weights = tf.constant(np.random.default_rng(2).normal(size=x.shape).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        total = tf.reduce_sum(weights * tf.square(outputs))
    by_input, *by_variables = tape.gradient(
        total, [x, *(variable.value for variable in layer.trainable_variables)]
    )
    return [tensor.numpy() for tensor in (outputs, by_input, *by_variables)]


@pytest.mark.parametrize("shape", SHAPES)
class TestAgainstKeras:
    def test_outputs_gradients_and_statistics_are_the_same(self, shape):
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

    def test_both_equal_numpy(self, shape):
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

    def test_inference_uses_and_leaves_the_moving_statistics(self, shape):
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

    def test_half_precision_computes_in_half_and_keeps_float32_statistics(self, shape):
        ours, theirs = pair(shape, dtype="mixed_bfloat16")
        x = tf.cast(inputs(shape), tf.bfloat16)
        outputs, expected = ours(x, training=True), theirs(x, training=True)
        assert outputs.dtype == tf.bfloat16
        np.testing.assert_allclose(
            tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32), atol=0.03
        )
        assert {variable.dtype for variable in ours.variables} == {"float32"}
        # Statistics taken in bfloat16 would be off by a few thousandths.
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

    def test_xla_gives_the_same(self, shape):
        ours, theirs = pair(shape)
        compiled = tf.function(lambda x: theirs(x, training=True), jit_compile=True)
        fused = tf.function(lambda x: ours(x, training=True), jit_compile=True)
        np.testing.assert_allclose(
            fused(tf.constant(inputs(shape))), compiled(tf.constant(inputs(shape))), atol=1e-5
        )
        np.testing.assert_allclose(
            ours.moving_variance.numpy(), theirs.moving_variance.numpy(), rtol=1e-5
        )

    @pytest.mark.parametrize("left_out", ["center", "scale"])
    def test_without_offset_or_scale(self, shape, left_out):
        ours, theirs = pair(shape, **{left_out: False})
        np.testing.assert_allclose(
            ours(inputs(shape), training=True), theirs(inputs(shape), training=True), atol=1e-5
        )


def test_a_batch_of_one_is_its_own_mean():
    layer = BatchNorm()
    np.testing.assert_allclose(
        layer(np.full((1, 4), 7.0, np.float32), training=True), 0.0, atol=1e-6
    )
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.9, rtol=1e-6)


def test_defaults_are_the_papers():
    layer = BatchNorm()
    assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


def test_serialises(tmp_path):
    layer = BatchNorm(momentum=0.7, epsilon=1e-4, name="bn")
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is BatchNorm
    assert again.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    model(np.random.default_rng(0).random((3, 4, 4, 2), dtype=np.float32), training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_batch_norm_is_synchronised_only_where_there_are_replicas():
    assert not batch_norm("bn").synchronized
    with tf.distribute.OneDeviceStrategy("/cpu:0").scope():
        assert not batch_norm("bn").synchronized
