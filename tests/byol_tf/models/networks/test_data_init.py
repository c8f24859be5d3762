"""Tests of `DataInit` against batch normalisation in NumPy and in networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import (
    BatchNorm,
    DataInit,
    build_encoder,
    initialize_from_data,
    mlp_head,
)
from byol_tf.models.networks.blocks import conv, dense, normalize
from tests.helpers.layer_harness import check_layer, relative_error
from tests.helpers.replicas import replicas
from tests.reference import networks as reference


def images(count: int = 16, size: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(0.4, 1.5, (count, size, size, 3)).astype(np.float32)


def residual_encoder() -> keras.Model:
    """Builds a stem and one residual block of two layers, with four channels."""
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.ReLU()(
        normalize(conv(inputs, 4, 3, 1, "stem", "data_init"), "stem_{}", "data_init")
    )
    y = keras.layers.ReLU()(normalize(conv(x, 4, 3, 1, "conv1", "data_init"), "{}1", "data_init"))
    y = normalize(conv(y, 4, 3, 1, "conv2", "data_init"), "{}2", "data_init", last_of_block=True)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x + y)))


def head() -> keras.Model:
    inputs = keras.Input((4,))
    x = keras.layers.ReLU()(normalize(dense(inputs, 8, "hidden", "data_init"), "{}", "data_init"))
    return keras.Model(inputs, dense(x, 3, "output", "data_init", use_bias=False))


def scales(model: keras.Model) -> list[DataInit]:
    return [layer for layer in model.layers if isinstance(layer, DataInit)]


def expected_by_numpy(encoder: keras.Model, projector: keras.Model, x):
    """Returns the outputs with batch normalisation, and (gain, mean, variance) of each layer."""
    kernels = [encoder.get_layer(name).kernel.numpy() for name in ("stem", "conv1", "conv2")]
    statistics = []

    def normalized(x, gain):
        outputs, mean, variance = reference.batch_norm(x, gain, 0.0, 1e-5)
        statistics.append((gain, mean, variance))
        return outputs

    x = np.maximum(normalized(reference.conv2d(x, kernels[0]), 1.0), 0.0)
    y = np.maximum(normalized(reference.conv2d(x, kernels[1]), 1.0), 0.0)
    y = normalized(reference.conv2d(y, kernels[2]), 0.0)
    representations = np.maximum(x + y, 0.0).mean(axis=(1, 2))
    (kernel, bias), (last,) = (
        projector.get_layer(name).get_weights() for name in ("hidden", "output")
    )
    hidden = np.maximum(normalized(representations @ kernel + bias, 1.0), 0.0)
    return hidden @ last, statistics


def test_variables_and_outputs_equal_numpy_batch_norm():
    encoder, projector = residual_encoder(), head()
    projector.get_layer("hidden").bias.assign(np.linspace(-2.0, 2.0, 8))
    initialize_from_data([encoder, projector], images())
    expected, statistics = expected_by_numpy(encoder, projector, images())
    for layer, (gain, mean, variance) in zip(
        [*scales(encoder), *scales(projector)], statistics, strict=True
    ):
        gamma = gain / np.sqrt(variance + 1e-5)
        np.testing.assert_allclose(layer.gamma.numpy(), gamma, rtol=1e-5, err_msg=layer.name)
        np.testing.assert_allclose(
            layer.beta.numpy(), -mean * gamma, rtol=1e-4, atol=1e-5, err_msg=layer.name
        )
    assert relative_error(projector(encoder(images())), expected) < 1e-5


@pytest.mark.parametrize(
    "name", ["convnet", "resnet18", pytest.param("resnet50", marks=pytest.mark.long)]
)
def test_initialized_network_equals_the_one_with_batch_norm(name):
    encoder, twin = (
        build_encoder(name, 16, 0.0625, "3x3", normalization)
        for normalization in ("data_init", "batch")
    )
    projector, twin_projector = (
        mlp_head(encoder.output_shape[-1], 12, 5, "p", 3, normalization, True)
        for normalization in ("data_init", "batch")
    )
    x = images(16, 16)
    for model, other in ((encoder, twin), (projector, twin_projector)):
        for layer in other.layers:
            if layer.weights and not isinstance(layer, BatchNorm):
                layer.set_weights(model.get_layer(layer.name).get_weights())
    last = {"resnet18": "_bn2", "resnet50": "_bn3"}.get(name)
    zeroed = [layer for layer in twin.layers if last and layer.name.endswith(last)]
    assert len(zeroed) == {"convnet": 0, "resnet18": 8, "resnet50": 16}[name]
    for layer in zeroed:
        layer.gamma.assign(0.0 * layer.gamma)
    initialize_from_data([encoder, projector], x)
    expected = twin_projector(twin(x, training=True), training=True)
    assert relative_error(projector(encoder(x)), expected) < 1e-4
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(
        projector(encoder(x[:3])), projector(encoder(x))[:3], atol=1e-5
    )  # and an image's output doesn't depend on the batch


def test_layer_is_a_scale_and_an_offset():
    layer = DataInit(gain=0.5)
    x = images()
    np.testing.assert_allclose(layer(x), 0.5 * x, rtol=1e-6)
    model = keras.Sequential([keras.Input((6, 6, 3)), layer])
    initialize_from_data([model], x)
    set_to = model.get_weights()
    model(10.0 * x, training=True)
    for one, other in zip(model.get_weights(), set_to, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        layer(10.0 * x), 10.0 * x * set_to[0] + set_to[1], rtol=1e-4, atol=1e-5
    )


def test_batch_norm_of_another_network_is_in_training_mode():
    encoder, projector = (
        build_encoder("convnet", 16, 0.25),
        mlp_head(32, 12, 5, "p", normalization="data_init"),
    )
    representations = encoder(images(16, 16), training=True)
    initialize_from_data([encoder, projector], images(16, 16))
    hidden = projector.get_layer("p_hidden")(representations)
    expected, _, _ = reference.batch_norm(hidden, 1.0, 0.0, 1e-5)
    assert relative_error(projector.get_layer("p_di")(hidden), expected) < 1e-4


def test_network_without_data_init_is_unchanged():
    encoder = build_encoder("convnet", 16, 0.25)
    before = encoder.get_weights()
    initialize_from_data([encoder], images(4, 16))
    for one, other in zip(encoder.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_error_leaves_no_layer_to_initialize():
    encoder, projector = residual_encoder(), head()
    stranger = keras.Sequential([keras.Input((9,)), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match="incompatible"):
        initialize_from_data([encoder, stranger, projector], images())
    before = projector.get_weights()
    projector(np.ones((2, 4), np.float32))
    for one, other in zip(projector.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_bfloat16_computes_statistics_in_float32():
    layer = DataInit(dtype="mixed_bfloat16")
    model = keras.Sequential([keras.Input((6, 6, 3)), layer])
    x = tf.cast(images() + 20.0, tf.bfloat16)
    initialize_from_data([model], x)
    _, mean, variance = reference.batch_norm(tf.cast(x, tf.float64), 1.0, 0.0, 1e-5)
    assert layer.gamma.dtype == layer.beta.dtype == "float32"
    np.testing.assert_allclose(layer.gamma.numpy(), 1.0 / np.sqrt(variance + 1e-5), rtol=1e-5)
    np.testing.assert_allclose(layer.beta.numpy(), -mean / np.sqrt(variance + 1e-5), rtol=1e-5)
    assert layer(x).dtype == tf.bfloat16


def test_network_in_bfloat16_is_normalised():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        encoder = build_encoder("convnet", 16, 0.25, normalization="data_init")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    initialize_from_data([encoder], images(16, 16))
    outputs = keras.Model(encoder.input, scales(encoder)[-1].output)(images(16, 16))
    np.testing.assert_allclose(
        tf.reduce_mean(tf.cast(outputs, tf.float32), [0, 1, 2]), 0.0, atol=0.02
    )
    np.testing.assert_allclose(
        tf.math.reduce_std(tf.cast(outputs, tf.float32), [0, 1, 2]), 1.0, atol=0.02
    )


def test_keeps_every_layers_promises(tmp_path):
    check_layer(DataInit, {"gain": 0.5, "epsilon": 1e-3, "name": "di"}, images(), tmp_path)


def drawn_networks(encoder: str, head: str) -> list[keras.Model]:
    networks = [
        build_encoder("convnet", 16, 0.5, normalization=encoder),
        mlp_head(64, 32, 16, "projector", normalization=head),
    ]
    for network in networks:
        for seed, variable in enumerate(network.trainable_variables):
            variable.assign(np.random.default_rng(seed).normal(0.0, 0.3, variable.shape))
    return networks


def data_inits(networks: list[keras.Model]) -> list[DataInit]:
    return [
        layer for network in networks for layer in network.layers if isinstance(layer, DataInit)
    ]


@pytest.mark.long
@pytest.mark.parametrize("encoder", ["data_init", "batch"])
def test_replicas_are_initialized_equally(encoder):
    strategy = replicas(2)
    with strategy.scope():
        mirrored = drawn_networks(encoder, "data_init")
        initialize_from_data(mirrored, images(8, 16))
    single = drawn_networks(encoder, "data_init")
    before = [layer.gamma.numpy() for layer in data_inits(single)]
    initialize_from_data(single, images(8, 16))
    for layer, one in zip(data_inits(mirrored), data_inits(single), strict=True):
        for variable, other in ((layer.gamma, one.gamma), (layer.beta, one.beta)):
            first, second = strategy.experimental_local_results(variable.value)
            np.testing.assert_array_equal(first.numpy(), second.numpy())
            assert np.abs(second.numpy() - other.numpy()).max() < 1e-4 * np.abs(other.numpy()).max()
    changes = [
        np.abs(layer.gamma.numpy() - was).max()
        for layer, was in zip(data_inits(single), before, strict=True)
    ]
    assert max(changes) > 0.1
