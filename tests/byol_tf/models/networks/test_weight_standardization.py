"""Tests of layers with standardised kernels against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import WSConv2D, WSDense
from byol_tf.models.networks.weight_standardization import standardized
from tests.helpers.layer_harness import (
    check_layer,
    gradients,
    loss_weights,
    random_weights,
    relative_error,
)
from tests.reference import networks as reference


def make(layer_type: str, **options) -> tuple[keras.layers.Layer, np.ndarray]:
    """Returns a layer with random weights, and inputs for it."""
    shape = (2, 5, 4, 3) if layer_type == "conv" else (4, 7)
    layer = (
        WSConv2D(6, 3, padding="same", **options) if layer_type == "conv" else WSDense(6, **options)
    )
    layer.build(shape)
    random_weights(layer)
    return layer, np.random.default_rng(0).normal(size=shape).astype(np.float32)


def forward(layer_type: str, x, kernel, bias):
    kernel = reference.standardized(kernel, 1e-4)
    return (reference.conv2d(x, kernel) if layer_type == "conv" else x @ kernel) + bias


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "XLA"])
@pytest.mark.parametrize("layer_type", ["conv", "dense"])
def test_outputs_and_gradients_equal_numpy(layer_type, compiled):
    layer, x = make(layer_type)
    kernel, bias = (variable.numpy().astype(np.float64) for variable in layer.trainable_variables)
    outputs, *by = gradients(layer, x, compiled)
    weights = loss_weights(outputs.shape)

    def total(*arguments):
        return (weights * forward(layer_type, *arguments) ** 2).sum()

    expected = [
        reference.numeric_gradient(lambda x: total(x, kernel, bias), x),
        reference.numeric_gradient(lambda kernel: total(x, kernel, bias), kernel),
        reference.numeric_gradient(lambda bias: total(x, kernel, bias), bias),
    ]
    assert relative_error(outputs, forward(layer_type, x, kernel, bias)) < 1e-5
    for name, one, other in zip(("inputs", "kernel", "bias"), by, expected, strict=True):
        assert relative_error(one, other) < 1e-5, name


@pytest.mark.parametrize("shape", [(3, 3, 16, 12), (300, 8), (1, 1, 4, 2)])
@pytest.mark.parametrize("scale", [1e-3, 0.02, 1.0])
def test_standardized_kernel_equals_numpy_at_any_scale(shape, scale):
    kernel = np.random.default_rng(0).normal(0.2 * scale, scale, shape).astype(np.float32)
    assert relative_error(standardized(kernel, 1e-4), reference.standardized(kernel, 1e-4)) < 1e-5


def test_large_mean_loses_few_digits():
    kernel = np.random.default_rng(0).normal(10.0, 1.0, (3, 3, 256, 16)).astype(np.float32)
    assert relative_error(standardized(kernel, 1e-4), reference.standardized(kernel, 1e-4)) < 1e-5


@pytest.mark.parametrize("layer_type", ["conv", "dense"])
def test_bfloat16_standardises_in_float32(layer_type):
    layer, x = make(layer_type, dtype="mixed_bfloat16")
    assert [(variable.name, variable.dtype) for variable in layer.variables] == [
        ("kernel", "float32"),
        ("bias", "float32"),
    ]
    # With a mean of a hundred deviations, a kernel that is rounded first has no digit left.
    layer.kernel.assign(layer.kernel + 100.0)
    kernel, bias = (variable.numpy() for variable in layer.variables)
    outputs, _, by_kernel, _ = gradients(layer, x)
    assert (outputs.dtype, by_kernel.dtype) == (tf.bfloat16, np.float32)
    assert relative_error(outputs, forward(layer_type, x, kernel, bias)) < 0.02
    full, _ = make(layer_type)
    full.set_weights(layer.get_weights())
    assert relative_error(by_kernel, gradients(full, x)[2]) < 0.02


@pytest.mark.parametrize("layer_type", ["conv", "dense"])
def test_stored_kernel_is_not_standardised(layer_type):
    layer, x = make(layer_type)
    before = layer.get_weights()
    layer(x, training=True)
    for one, other in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    # A kernel's scale and each unit's offset have no effect but for epsilon, so the gradient is
    # orthogonal to both.
    by_kernel = gradients(layer, x)[2].reshape(-1, 6)
    flat = before[0].reshape(-1, 6)
    assert np.abs(by_kernel.sum(axis=0)).max() < 1e-4 * np.abs(by_kernel).sum(axis=0).min()
    assert (
        np.abs((by_kernel * flat).sum(axis=0)).max()
        < 0.02 * np.abs(by_kernel * flat).sum(axis=0).min()
    )


@pytest.mark.parametrize("layer_type", ["conv", "dense"])
def test_activation_and_no_bias(layer_type):
    layer, x = make(layer_type, use_bias=False, activation="relu")
    expected = np.maximum(forward(layer_type, x, layer.kernel.numpy(), 0.0), 0.0)
    assert relative_error(layer(x), expected) < 1e-5
    assert [variable.name for variable in layer.variables] == ["kernel"]


@pytest.mark.parametrize("layer_type", ["conv", "dense"])
def test_keeps_every_layers_promises(layer_type, tmp_path):
    layer, x = make(layer_type)
    sizes = {"filters": 6, "kernel_size": 3} if layer_type == "conv" else {"units": 6}
    check_layer(type(layer), sizes | {"epsilon": 1e-2, "name": "ws"}, x, tmp_path)


def test_default_epsilon_is_the_papers():
    assert WSConv2D(4, 3).epsilon == WSDense(4).epsilon == 1e-4
