"""Tests of `Conv2D`: its own kernel gradient, and where Keras' is used."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import Conv2D
from byol_tf.models.networks.conv2d import _MAX_ROWS_PER_FILTER
from tests.helpers.layer_harness import check_layer, relative_error


def gradients(layer, images, upstream):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images)
        total = tf.reduce_sum(tf.cast(outputs, tf.float32) * upstream)
    return outputs, tape.gradient(total, [images, layer.kernel.value])


CPU = Path("/proc/cpuinfo")
BOUND = 2**-8 if CPU.exists() and "avx512" in CPU.read_text() else 2**-5
"""Relative error of bfloat16. With AVX-512 oneDNN adds up in float32; otherwise TensorFlow's own
matrix product rounds partial sums to bfloat16."""


def operations(layer, images) -> set[str]:
    def both(images):
        return gradients(layer, images, 1.0)[1]

    return {
        operation.type
        for operation in tf.function(both).get_concrete_function(images).graph.get_operations()
    }


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "units"),
    [(3, 1, 3, 64), (3, 2, 6, 64), (1, 1, 3, 64), (1, 2, 5, 32), (3, 2, 1, 16)],
)
def test_bfloat16_gradients_are_close_to_float64(kernel, stride, side, units):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(8, side, side, 16)), tf.bfloat16)
    low = Conv2D(
        units, kernel, strides=stride, padding="same", use_bias=False, dtype="mixed_bfloat16"
    )
    low.build(images.shape)
    low.kernel.assign(tf.cast(tf.cast(low.kernel.value, tf.bfloat16), tf.float32))
    high = keras.layers.Conv2D(
        units, kernel, strides=stride, padding="same", use_bias=False, dtype="float64"
    )
    high.build(images.shape)
    high.kernel.assign(low.kernel.numpy().astype(np.float64))
    # Integers, which are exact in bfloat16.
    upstream = tf.constant(
        rng.integers(-3, 4, size=(8, -(-side // stride), -(-side // stride), units)), tf.float32
    )
    assert "ExtractImagePatches" in operations(low, images) or kernel == stride == 1
    assert "Conv2DBackpropFilter" not in operations(low, images)
    outputs, (to_images, to_kernel) = gradients(low, images, upstream)
    with tf.GradientTape() as tape:
        wide = tf.cast(images, tf.float64)
        tape.watch(wide)
        expected = high(wide)
        total = tf.reduce_sum(expected * tf.cast(upstream, tf.float64))
    expected_images, expected_kernel = tape.gradient(total, [wide, high.kernel.value])
    for computed, reference in (
        (outputs, expected),
        (to_images, expected_images),
        (to_kernel, expected_kernel),
    ):
        assert relative_error(tf.cast(computed, tf.float64).numpy(), reference.numpy()) < BOUND


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"dtype": "float32"}, (8, 3, 3, 16)),
        ({"dtype": "mixed_bfloat16", "padding": "valid"}, (8, 4, 4, 16)),
        ({"dtype": "mixed_bfloat16", "dilation_rate": 2}, (8, 3, 3, 16)),
        ({"dtype": "mixed_bfloat16"}, (_MAX_ROWS_PER_FILTER * 32 + 1, 1, 1, 16)),
    ],
)
def test_unsupported_options_use_keras_gradient(options, shape):
    layer = Conv2D(32, 3, **{"padding": "same", "use_bias": False} | options)
    layer.build(shape)
    assert "Conv2DBackpropFilter" in operations(layer, tf.zeros(shape, layer.compute_dtype))


def test_unknown_batch_size_uses_keras_gradient():
    layer = Conv2D(32, 3, padding="same", dtype="mixed_bfloat16")
    assert layer(keras.Input((3, 3, 16))).shape == (None, 3, 3, 32)
    assert "Conv2DBackpropFilter" in operations(layer, tf.TensorSpec((None, 3, 3, 16), tf.bfloat16))


def test_keeps_every_layers_promises(tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    options = {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same", "name": "conv"}
    check_layer(Conv2D, options, x, tmp_path)
