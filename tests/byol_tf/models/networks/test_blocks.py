"""Tests of the building blocks: the layers of each normalisation, and its errors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.networks import (
    NORMALIZATIONS,
    BatchNorm,
    Conv2D,
    DataInit,
    GroupNorm,
    WSConv2D,
    WSDense,
    build_encoder,
    mlp_head,
)
from byol_tf.models.networks.blocks import conv, normalize

NORM_CLASSES = {"batch": BatchNorm, "layer": GroupNorm, "group": GroupNorm, "data_init": DataInit}


def networks(normalization: str) -> list[keras.Model]:
    return [
        build_encoder("convnet", 16, 0.5, normalization=normalization),
        build_encoder("resnet18", 16, 0.25, normalization=normalization),
        build_encoder("resnet50", 16, 0.25, normalization=normalization),
        mlp_head(32, 64, 32, "projector", 3, normalization, True),
    ]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_each_normalization_uses_its_layers(normalization):
    own = {BatchNorm, GroupNorm, DataInit, WSConv2D, WSDense}
    linear = {WSConv2D, WSDense} if normalization == "group" else {Conv2D, keras.layers.Dense}
    for model, count in zip(networks(normalization), (4, 20, 53, 3), strict=True):
        classes = [type(layer) for layer in model.layers]
        normalizations = [
            layer for layer in model.layers if type(layer) in own - {WSConv2D, WSDense}
        ]
        assert len(normalizations) == (0 if normalization == "none" else count)
        assert all(type(layer) is NORM_CLASSES[normalization] for layer in normalizations)
        assert (
            sum(layer_class in linear for layer_class in classes) == count
        )  # one before each normalisation: heads here normalise their output too
        assert not any(
            layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D)
        )
        if normalization in ("layer", "group"):
            assert {(layer.groups, layer.epsilon) for layer in normalizations} == {
                (16 if normalization == "group" else 1, 1e-5)
            }


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_variable_gets_gradients_in_both_precisions(normalization):
    for precision in ("float32", "mixed_bfloat16"):
        keras.mixed_precision.set_global_policy(precision)
        try:
            models = [
                build_encoder("resnet18", 16, 0.25, "3x3+pool", normalization),
                mlp_head(128, 32, 16, "p", 2, normalization),
            ]
        finally:
            keras.mixed_precision.set_global_policy("float32")
        for layer in models[0].layers:
            if isinstance(layer, DataInit):
                layer.gamma.assign(tf.ones_like(layer.gamma))
        variables = [variable for model in models for variable in model.trainable_variables]
        x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
        with tf.GradientTape() as tape:
            outputs = models[1](models[0](x, training=True), training=True)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3)
        assert outputs.dtype == models[0].compute_dtype
        for variable, gradient in zip(
            variables, tape.gradient(loss, [v.value for v in variables]), strict=True
        ):
            assert np.isfinite(gradient).all(), variable.path
            assert np.abs(gradient).max() > 0.0, variable.path


def test_layer_names_are_those_in_checkpoints():
    names = {layer.name for layer in build_encoder("resnet18", 16, 0.25).layers}
    assert {
        "stem_conv",
        "stem_bn",
        "group1_block1_bn1",
        "group1_block1_bn2",
        "group2_block1_shortcut_bn",
    } <= names
    assert {"bn1", "conv1", "bn4"} <= {
        layer.name for layer in build_encoder("convnet", 16, 0.25).layers
    }
    assert [layer.name for layer in mlp_head(4, 4, 4, "predictor").layers][1:] == [
        *("predictor_hidden", "predictor_bn", "predictor_relu", "predictor_output")
    ]


def test_initial_kernels_do_not_depend_on_normalization():
    kernels = []
    for normalization in NORMALIZATIONS:
        keras.utils.set_random_seed(0)
        model = build_encoder("convnet", 16, 0.5, normalization=normalization)
        kernels.append(
            [
                layer.kernel.numpy()
                for layer in model.layers
                if isinstance(layer, keras.layers.Conv2D)
            ]
        )
    for others in kernels[1:]:
        for one, other in zip(kernels[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "head"])
def test_unknown_normalization_is_an_error(name):
    with pytest.raises(
        ValueError,
        match=r'normalization: expected "batch", .*"none" or "data_init"; received \'instance\'',
    ):
        mlp_head(4, 4, 4, "p", 2, "instance") if name == "head" else build_encoder(
            name, 16, normalization="instance"
        )


def test_group_error_names_layer_with_indivisible_channels():
    with pytest.raises(
        ValueError, match="stem_gn: expected a number of channels that 16 groups divide; received 8"
    ):
        build_encoder("resnet18", 16, 0.125, normalization="group")
    with pytest.raises(ValueError, match=r"projector_gn: .*; received 100"):
        mlp_head(4, 100, 16, "projector", normalization="group")


def test_xla_gives_the_same_numbers_for_group():
    inputs = keras.Input((16, 16, 3))
    features = keras.layers.ReLU()(
        normalize(conv(inputs, 64, 3, 2, "conv", "group"), "{}", "group")
    )
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))
    head = mlp_head(64, 256, 16, "p", normalization="group")
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32))
    variables = [
        variable.value for model in (encoder, head) for variable in model.trainable_variables
    ]

    def step(x):
        with tf.GradientTape() as tape:
            outputs = tf.math.l2_normalize(head(encoder(x, training=True), training=True), -1)
            loss = tf.reduce_sum(outputs[:, :3] ** 2)
        return [outputs, *tape.gradient(loss, variables)]

    for one, other in zip(tf.function(step, jit_compile=True)(x), step(x), strict=True):
        assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()
