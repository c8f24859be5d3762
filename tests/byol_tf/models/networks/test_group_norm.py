"""Tests of group normalisation against NumPy and Keras' own layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import GroupNorm
from tests.helpers.layer_harness import (
    check_layer,
    gradients,
    gradients_as_tensors,
    loss_weights,
    random_weights,
    relative_error,
)
from tests.reference import networks as reference

SHAPES = [(3, 3, 5, 8), (6, 32)]


def inputs(shape: tuple[int, ...], mean: float = 0.7) -> np.ndarray:
    """Returns images of different scales."""
    rng = np.random.default_rng(0)
    scale = np.arange(1.0, 1.0 + shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (scale * rng.normal(mean, 1.0, shape)).astype(np.float32)


def built(shape: tuple[int, ...], groups: int, **options) -> GroupNorm:
    layer = GroupNorm(groups, **options)
    layer.build(shape)
    random_weights(layer)
    return layer


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "XLA"])
@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_and_gradients_equal_numpy(shape, groups, compiled):
    layer = built(shape, groups)
    gamma, beta = (variable.numpy().astype(np.float64) for variable in layer.trainable_variables)
    x, weights = inputs(shape), loss_weights(shape)

    def forward(x, gamma, beta):
        return reference.group_norm(x, gamma, beta, layer.groups, 1e-5)

    def total(*arguments):
        return (weights * forward(*arguments) ** 2).sum()

    expected = [
        forward(x, gamma, beta),
        reference.numeric_gradient(lambda x: total(x, gamma, beta), x),
        reference.numeric_gradient(lambda gamma: total(x, gamma, beta), gamma),
        reference.numeric_gradient(lambda beta: total(x, gamma, beta), beta),
    ]
    for name, one, other in zip(
        ("outputs", "inputs", "gamma", "beta"), gradients(layer, x, compiled), expected, strict=True
    ):
        assert relative_error(one, other) < 1e-5, name


@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0])
def test_large_mean_loses_few_digits(mean):
    x = inputs((2, 48, 48, 32), mean)
    layer = built(x.shape, 16)
    expected = reference.group_norm(
        x, *(variable.numpy() for variable in layer.trainable_variables), 16, 1e-5
    )
    assert relative_error(layer(x), expected) < 1e-6 * max(10.0, mean)


@pytest.mark.parametrize("shape", SHAPES)
def test_variables_and_gradients_equal_keras(shape):
    ours, theirs = built(shape, 4), keras.layers.GroupNormalization(4, epsilon=1e-5)
    theirs.build(shape)
    assert [(v.name, v.shape, v.dtype) for v in ours.variables] == [
        (v.name, v.shape, v.dtype) for v in theirs.variables
    ]
    theirs.set_weights(ours.get_weights())
    for one, other in zip(
        gradients(ours, inputs(shape)), gradients(theirs, inputs(shape)), strict=True
    ):
        assert relative_error(one, other) < 1e-5


@pytest.mark.parametrize(
    "options", [{"scale": False}, {"center": False}, {"gamma_initializer": "zeros"}]
)
def test_options_equal_keras(options):
    shape = SHAPES[0]
    ours = GroupNorm(4, **options)
    theirs = keras.layers.GroupNormalization(4, epsilon=1e-5, **options)
    assert relative_error(ours(inputs(shape)) + 1.0, theirs(inputs(shape)) + 1.0) < 1e-5
    assert [(v.name, v.shape) for v in ours.variables] == [
        (v.name, v.shape) for v in theirs.variables
    ]


def test_initial_output_is_normalised():
    layer = GroupNorm(2)
    outputs = layer(inputs((3, 4, 4, 6))).numpy().reshape(3, 16, 2, 3)
    np.testing.assert_allclose(outputs.mean(axis=(1, 3)), 0.0, atol=1e-6)
    np.testing.assert_allclose(outputs.std(axis=(1, 3)), 1.0, rtol=1e-5)


def test_image_is_normalised_alone_in_training():
    layer, x = built((3, 4, 4, 8), 4), inputs((3, 4, 4, 8))
    np.testing.assert_array_equal(layer(x, training=True)[1:2], layer(x[1:2], training=True))


def test_bfloat16_computes_statistics_in_float32():
    shape = (2, 24, 24, 16)
    layer = built(shape, 8, dtype="mixed_bfloat16")
    assert {variable.dtype for variable in layer.variables} == {"float32"}
    x = tf.cast(inputs(shape, mean=10.0), tf.bfloat16)
    outputs, by_input, by_gamma, by_beta = gradients(layer, x)
    assert (outputs.dtype, by_input.dtype, by_gamma.dtype) == (tf.bfloat16, tf.bfloat16, np.float32)
    gamma, beta = (variable.numpy().astype(np.float64) for variable in layer.trainable_variables)
    expected = reference.group_norm(tf.cast(x, tf.float64), gamma, beta, 8, 1e-5)
    # Only the rounding of the outputs is lost: half of 2^-7 at most. Means in bfloat16 would be off
    # by 2^-8 of ten deviations.
    np.testing.assert_allclose(outputs.astype(np.float64), expected, rtol=2.0**-8, atol=1e-4)
    full = built(shape, 8)
    for one, other in zip(
        (by_input, by_gamma, by_beta), gradients(full, tf.cast(x, tf.float32))[1:], strict=True
    ):
        assert relative_error(one, other) < 0.01


def test_any_number_of_images_and_positions():
    layer = built((None, None, None, 8), 4)
    run = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 8))])
    gamma, beta = (variable.numpy() for variable in layer.variables)
    for shape in [(1, 1, 1, 8), (2, 3, 5, 8), (5, 4, 2, 8)]:
        assert (
            relative_error(
                run(inputs(shape)), reference.group_norm(inputs(shape), gamma, beta, 4, 1e-5)
            )
            < 1e-5
        )
    assert layer(inputs((0, 3, 3, 8))).shape == (0, 3, 3, 8)


def test_gradients_in_a_replica_are_the_same():
    strategy = tf.distribute.MirroredStrategy(["/cpu:0"])
    alone = built(SHAPES[0], 4)
    with strategy.scope():
        layer = built(SHAPES[0], 4)
    results = strategy.run(tf.function(lambda: gradients_as_tensors(layer, inputs(SHAPES[0]))))
    for one, other in zip(results, gradients(alone, inputs(SHAPES[0])), strict=True):
        assert relative_error(one, other) < 1e-6


def test_indivisible_channels_are_an_error():
    with pytest.raises(
        ValueError,
        match="stem_gn: expected a number of channels that 16 groups divide; received 24",
    ):
        GroupNorm(16, name="stem_gn").build((None, 24))


@pytest.mark.parametrize("shape", [(None, 16), (None, 1, 1, 16)])
def test_groups_of_one_number_are_an_error(shape):
    """Each would be normalised to 0."""
    with pytest.raises(ValueError, match="expected several numbers in each of 16 groups"):
        GroupNorm(16).build(shape)
    GroupNorm(16).build((None, 2, 1, 16))
    GroupNorm(16).build((None, None, None, 16))


def test_defaults_are_the_papers():
    layer = GroupNorm()
    assert (layer.groups, layer.epsilon) == (16, 1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_keeps_every_layers_promises(shape, tmp_path):
    check_layer(GroupNorm, {"groups": 4, "epsilon": 1e-3, "name": "gn"}, inputs(shape), tmp_path)
