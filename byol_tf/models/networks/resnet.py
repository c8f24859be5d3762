"""ResNet v1.5 as in deepmind-research `byol/utils/networks.py`.

He et al., 2015, https://arxiv.org/abs/1512.03385; version 1.5 has the stride on the 3x3
convolution.
"""

from functools import partial

import keras
from keras import layers

from byol_tf.constants import RESNET_STEM_CHANNELS, RESNETS
from byol_tf.errors import check_choice
from byol_tf.models.networks.blocks import (
    NORMALIZATIONS,
    PADDINGS,
    conv,
    normalize,
    pad,
)

TWO_LAYER_BLOCKS = ("resnet8", "resnet18", "resnet34")
"""Networks whose blocks have two 3x3 convolutions; the others have a 1x1, a 3x3 and a 1x1."""
INNER_WIDTHS = {"wide_resnet50_2": 2}
"""Multiplies the channels of the 3x3 convolutions alone, as torchvision does (Zagoruyko and
Komodakis, 2016, https://arxiv.org/abs/1605.07146)."""
PATCH_STEM = "4x4"
STEMS = ("7x7", "3x3", "3x3+pool", PATCH_STEM)
"""Stem of patches of 4 x 4 pixels; `encoders.convnet` has it too."""
_BOTTLENECK_EXPANSION = 4
"""Output channels of a block of three convolutions, as a multiple of those inside it."""


def _two_layer_block(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    name: str,
    normalization: str,
    padding: str,
    zero_init: bool,
) -> keras.KerasTensor:
    y = conv(x, filters, 3, stride, f"{name}_conv1", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu1")(normalize(y, f"{name}_{{}}1", normalization))
    y = conv(y, filters, 3, 1, f"{name}_conv2", normalization, padding)
    return normalize(y, f"{name}_{{}}2", normalization, last_of_block=True, zero_init=zero_init)


def _bottleneck_block(
    x: keras.KerasTensor,
    filters: int,
    stride: int,
    name: str,
    normalization: str,
    padding: str,
    zero_init: bool,
    inner_width: int,
) -> keras.KerasTensor:
    inner = filters // _BOTTLENECK_EXPANSION * inner_width
    y = conv(x, inner, 1, 1, f"{name}_conv1", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu1")(normalize(y, f"{name}_{{}}1", normalization))
    y = conv(y, inner, 3, stride, f"{name}_conv2", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu2")(normalize(y, f"{name}_{{}}2", normalization))
    y = conv(y, filters, 1, 1, f"{name}_conv3", normalization, padding)
    return normalize(y, f"{name}_{{}}3", normalization, last_of_block=True, zero_init=zero_init)


def _stem(
    x: keras.KerasTensor, filters: int, stem: str, normalization: str, padding: str
) -> keras.KerasTensor:
    if stem == PATCH_STEM:
        x = conv(x, filters, 4, 4, "stem_conv", normalization)
    else:
        kernel, stride = (7, 2) if stem == "7x7" else (3, 1)
        x = conv(x, filters, kernel, stride, "stem_conv", normalization, padding)
    x = layers.ReLU(name="stem_relu")(normalize(x, "stem_{}", normalization))
    if stem in ("3x3", PATCH_STEM):
        return x
    x, keras_padding = pad(x, 3, 2, "stem_pool", padding)
    return layers.MaxPooling2D(3, strides=2, padding=keras_padding, name="stem_pool")(x)


def resnet(
    name: str,
    image_size: int,
    width: float = 1.0,
    stem: str = "7x7",
    normalization: str = "batch",
    padding: str = "same",
    zero_init_residual: bool = False,
    channels: int = 3,
) -> keras.Model:
    """Builds a ResNet without classifier.

    The arguments are those of `encoders.build_encoder`; representations are `[N, d]`, d = 256 x
    width for resnet8, 512 x width for resnet18 and resnet34, 2048 x width for the others.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    check_choice("padding", padding, PADDINGS)
    two_layers = name in TWO_LAYER_BLOCKS
    block = (
        _two_layer_block
        if two_layers
        else partial(_bottleneck_block, inner_width=INNER_WIDTHS.get(name, 1))
    )
    first_filters = RESNET_STEM_CHANNELS * (1 if two_layers else _BOTTLENECK_EXPANSION)
    inputs = keras.Input((image_size, image_size, channels), name="images")
    x = _stem(inputs, round(RESNET_STEM_CHANNELS * width), stem, normalization, padding)
    for group, blocks in enumerate(RESNETS[name]):
        filters = round(first_filters * 2**group * width)
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            prefix = f"group{group + 1}_block{index + 1}"
            shortcut = x
            if stride != 1 or x.shape[-1] != filters:
                shortcut = conv(
                    x, filters, 1, stride, f"{prefix}_shortcut_conv", normalization, padding
                )
                shortcut = normalize(shortcut, f"{prefix}_shortcut_{{}}", normalization)
            y = block(x, filters, stride, prefix, normalization, padding, zero_init_residual)
            x = layers.ReLU(name=f"{prefix}_relu")(layers.Add(name=f"{prefix}_add")([y, shortcut]))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name=name)
