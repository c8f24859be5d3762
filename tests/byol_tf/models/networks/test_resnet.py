"""Tests of encoders: published parameter counts, and the structure of the papers."""

import itertools

import keras
import numpy as np
import pytest

from byol_tf.config.fields import allowed_values
from byol_tf.constants import CONVNET_STEM_CHANNELS, RESNET_STEM_CHANNELS, RESNETS
from byol_tf.models.networks import build_encoder
from byol_tf.models.networks.resnet import TWO_LAYER_BLOCKS
from tests.reference import networks as reference


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def layers_of(model: keras.Model, layer_class: type) -> list[keras.layers.Layer]:
    return [layer for layer in model.layers if isinstance(layer, layer_class)]


@pytest.fixture(scope="module")
def small50() -> keras.Model:
    """Builds a ResNet-50 with an eighth of the channels, for 64 pixels."""
    return build_encoder("resnet50", 64, width=0.125)


@pytest.mark.parametrize("depth", reference.PUBLISHED)
def test_reference_arithmetic_gives_torchvisions_counts(depth):
    features = 2048 if depth >= 50 else 512
    assert reference.resnet_parameters(depth) + features * 1000 + 1000 == reference.PUBLISHED[depth]


def test_resnet18_has_the_published_size():
    model = build_encoder("resnet18", 32)
    assert trainable(model) == reference.resnet_parameters(18) == 11_176_512
    assert (
        model.count_params() == 11_176_512 + 9_600
    )  # and two moving statistics a channel of its 4,800


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet34", 0.25),
        ("resnet50", 0.0625),
        # Their depths are in the fast suite: test_block_counts_are_the_papers.
        pytest.param("resnet101", 0.0625, marks=pytest.mark.long),
        pytest.param("resnet200", 0.0625, marks=pytest.mark.long),
    ],
)
def test_narrow_networks_have_the_computed_size(name, width):
    assert trainable(build_encoder(name, 32, width)) == reference.resnet_parameters(
        int(name[6:]), width
    )


def test_resnet50_has_the_published_size():
    model = build_encoder("resnet50", 32)
    assert trainable(model) == 23_508_032
    assert (
        model.count_params() == 23_508_032 + 53_120
    )  # and two moving statistics a channel of its 26,560


def test_largest_networks_have_the_papers_sizes():
    # BYOL paper, table 1, in millions: 24, 94 and 375 for ResNet-50 (1x, 2x, 4x), 250 for
    # ResNet-200 (2x)
    expected = {
        (50, 1): 23_508_032,
        (50, 2): 93_907_072,
        (50, 4): 375_378_176,
        (200, 2): 250_128_512,
    }
    assert {key: reference.resnet_parameters(*key) for key in expected} == expected
    assert [round(count / 1e6) for count in expected.values()] == [24, 94, 375, 250]


def test_computed_sizes_at_full_width_are_the_published():
    expected = {34: 21_284_672, 50: 23_508_032, 101: 42_500_160, 152: 58_143_808}
    assert {depth: reference.resnet_parameters(depth) for depth in expected} == expected


def test_block_counts_are_the_papers():
    assert RESNETS["resnet152"] == (3, 8, 36, 3)
    assert RESNETS["resnet200"] == (3, 24, 36, 3)
    assert {
        name: 2 + sum(blocks) * (2 if name in TWO_LAYER_BLOCKS else 3)
        for name, blocks in RESNETS.items()
    } == {
        name: int(name.removeprefix("wide_").removeprefix("resnet").removesuffix("_2"))
        for name in RESNETS
    }


def test_wide_resnet_inner_width_and_parameter_count():
    assert (
        reference.resnet_parameters(50, inner_width=2) + 2048 * 1000 + 1000
        == reference.PUBLISHED_WIDE_50
    )
    model = build_encoder("wide_resnet50_2", 32, 0.125)
    assert trainable(model) == reference.resnet_parameters(50, 0.125, inner_width=2)
    assert model.get_layer("group2_block1_conv2").kernel.shape == (3, 3, 32, 32)
    assert model.output_shape == (None, 256)


def test_symmetric_padding_precedes_strides_and_keeps_shapes():
    same, symmetric = (
        build_encoder("resnet18", 64, 0.125, padding=padding) for padding in ("same", "symmetric")
    )
    pads = {layer.name: layer.padding for layer in layers_of(symmetric, keras.layers.ZeroPadding2D)}
    assert pads == {"stem_conv_pad": ((3, 3), (3, 3))} | {
        f"{name}_pad": ((1, 1), (1, 1))
        for name in ("stem_pool", *(f"group{group}_block1_conv1" for group in (2, 3, 4)))
    }
    assert not layers_of(same, keras.layers.ZeroPadding2D)
    for layer in same.layers:
        if layer.weights:
            assert symmetric.get_layer(layer.name).output.shape == layer.output.shape
    symmetric.set_weights(same.get_weights())
    images = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    assert np.abs(same(images).numpy() - symmetric(images).numpy()).max() > 1e-3


def test_unknown_padding_is_an_error():
    with pytest.raises(
        ValueError, match='padding: expected "same" or "symmetric"; received \'valid\''
    ):
        build_encoder("resnet18", 32, padding="valid")


@pytest.mark.parametrize(
    ("stem", "kernel", "after_stem", "last"),
    [("7x7", 7, 16, 2), ("3x3", 3, 64, 8), ("3x3+pool", 3, 32, 4), ("4x4", 4, 16, 2)],
    ids=["7x7", "3x3", "3x3 and pooling", "patches"],
)
def test_stem_sets_the_resolution(stem, kernel, after_stem, last):
    model = build_encoder("resnet18", 64, width=0.125, stem=stem)
    assert model.input_shape == (None, 64, 64, 3)
    assert model.output_shape == (None, 64)
    assert model.get_layer("group1_block1_add").output.shape[1:] == (after_stem, after_stem, 8)
    assert model.get_layer("group4_block2_relu").output.shape[1:] == (last, last, 64)
    assert model.get_layer("stem_conv").kernel.shape[:2] == (kernel, kernel)


@pytest.mark.parametrize(
    ("stem", "stride"),
    [("7x7", 8), ("3x3", 4), ("4x4", 16)],
    ids=["own", "stride 1", "patches"],
)
def test_convnet_has_stems_of_its_own(stem, stride):
    model = build_encoder("convnet", 64, width=0.5, stem=stem)
    assert model.output_shape == (None, 64)
    assert model.layers[-2].output.shape[1:] == (64 // stride, 64 // stride, 64)
    assert model.get_layer("conv1").kernel.shape[:2] == ((4, 4) if stem == "4x4" else (3, 3))


def test_stride_is_on_the_3x3_convolution(small50):
    strided = {
        layer.name for layer in layers_of(small50, keras.layers.Conv2D) if layer.strides != (1, 1)
    }
    blocks = [f"group{group}_block1" for group in (2, 3, 4)]
    assert strided == {
        "stem_conv",
        *(f"{block}_conv2" for block in blocks),
        *(f"{block}_shortcut_conv" for block in blocks),
    }
    assert {small50.get_layer(f"{block}_conv2").kernel_size for block in blocks} == {(3, 3)}
    assert len([layer for layer in small50.layers if layer.name.endswith("shortcut_conv")]) == 4


def test_convolutions_have_no_bias_and_are_normalised(small50):
    convs = layers_of(small50, keras.layers.Conv2D)
    assert not any(conv.use_bias for conv in convs)
    assert len(convs) == len(layers_of(small50, keras.layers.BatchNormalization)) == 53
    assert {layer.name for layer in small50.layers if layer.name.endswith("_bn3")}
    names = {layer.name for layer in small50.layers}
    assert "group1_block1_relu3" not in names  # the last ReLU follows the sum


def test_initialisation_is_truncated_normal_by_fan_in():
    model = build_encoder("resnet18", 32, width=0.5)
    kernel = model.get_layer("group3_block2_conv1").kernel.numpy()
    fan_in = np.prod(kernel.shape[:3])
    assert kernel.std() == pytest.approx(fan_in**-0.5, rel=0.02)
    assert (
        np.abs(kernel).max() < 2.0 / 0.8796 / np.sqrt(fan_in) * 1.001
    )  # cut at two of the untruncated deviations
    assert all(
        (layer.gamma.numpy() == 1.0).all()
        for layer in layers_of(model, keras.layers.BatchNormalization)
    )


def test_representation_is_the_mean_over_positions(small50):
    images = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    maps = keras.Model(small50.input, small50.get_layer("group4_block3_relu").output)(
        images
    ).numpy()
    assert maps.shape == (2, 2, 2, 256)
    assert maps.min() >= 0.0
    np.testing.assert_allclose(
        small50(images).numpy(), maps.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6
    )


def test_block_adds_its_shortcut_before_the_last_relu(small50):
    outputs = [
        small50.get_layer(name).output for name in ("group1_block1_relu", "group1_block2_relu")
    ]
    images = np.random.default_rng(0).random((1, 64, 64, 3), dtype=np.float32)
    before, after = keras.Model(small50.input, outputs)(images)
    x = before
    for name in ("conv1", "bn1", "relu1", "conv2", "bn2", "relu2", "conv3", "bn3"):
        x = small50.get_layer(f"group1_block2_{name}")(x)
    np.testing.assert_allclose(
        after.numpy(), np.maximum(x.numpy() + before.numpy(), 0.0), rtol=1e-5, atol=1e-6
    )
    assert np.abs(x.numpy()).max() > 0.1


@pytest.mark.parametrize(
    ("normalization", "less"), [("layer", 0), ("group", 0), ("data_init", 0), ("none", 2 * 4800)]
)
def test_parameter_counts_of_other_normalisations(normalization, less):
    model = build_encoder("resnet18", 32, normalization=normalization)
    assert trainable(model) == model.count_params() == reference.resnet_parameters(18) - less


def test_convnet_has_the_computed_size():
    model = build_encoder("convnet", 32)
    channels = (3, 32, 64, 128, 128)
    expected = sum(
        9 * inputs * outputs + 2 * outputs for inputs, outputs in itertools.pairwise(channels)
    )
    assert trainable(model) == expected
    assert model.output_shape == (None, 128)
    assert model.get_layer("relu4").output.shape[1:] == (4, 4, 128)
    assert build_encoder("convnet", 32, width=0.25).output_shape == (None, 32)


def test_config_names_exactly_these_encoders():
    assert set(allowed_values(("encoder", "name"))) == {"convnet", *RESNETS}


@pytest.mark.parametrize(
    ("name", "channels"), [("convnet", CONVNET_STEM_CHANNELS), ("resnet18", RESNET_STEM_CHANNELS)]
)
def test_first_layer_has_the_channels_that_the_config_checks(name, channels):
    first = layers_of(build_encoder(name, 32), keras.layers.Conv2D)[0]
    assert first.filters == channels


def test_unknown_encoder_is_an_error():
    with pytest.raises(ValueError, match=r"encoder: expected \"convnet\", .*; received 'vgg'"):
        build_encoder("vgg", 32)


@pytest.mark.parametrize("name", ["resnet18", "convnet"])
def test_unknown_stem_is_an_error(name):
    with pytest.raises(ValueError, match=r"stem: expected \"7x7\", .* or \"4x4\"; received '7X7'"):
        build_encoder(name, 32, stem="7X7")


@pytest.mark.parametrize(
    ("name", "last", "normalization"),
    [
        ("resnet18", "2", "batch"),
        pytest.param("resnet18", "2", "group", marks=pytest.mark.long),
        pytest.param("resnet50", "3", "batch", marks=pytest.mark.long),
    ],
)
def test_zero_init_residual_starts_blocks_as_the_identity(name, last, normalization):
    """As torchvision's `zero_init_residual` and SimCLR's `init_zero`."""
    model = build_encoder(name, 32, 0.25, normalization=normalization, zero_init_residual=True)
    short = {"batch": "bn", "group": "gn"}[normalization]
    layers = [layer for layer in model.layers if hasattr(layer, "gamma")]
    zero = [layer.name for layer in layers if not layer.gamma.numpy().any()]
    assert zero == [
        f"group{group + 1}_block{block + 1}_{short}{last}"
        for group, blocks in enumerate(RESNETS[name])
        for block in range(blocks)
    ]
    block = "group1_block2"  # without a convolution in its shortcut
    outputs = [model.get_layer(layer).output for layer in ("group1_block1_relu", f"{block}_relu")]
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    before, after = keras.Model(model.input, outputs)(images)
    np.testing.assert_array_equal(before, after)
