"""ResNet v1.5 (He et al. 2015, stride on the 3x3 convolution) as in deepmind-research
`byol/utils/networks.py`."""

from functools import partial

import keras
from keras import layers

from byol_tf.models.networks.blocks import (
    check_normalization,
    check_padding,
    conv,
    normalize,
    padded,
)

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnet200": (3, 24, 36, 3),
    "wide_resnet50_2": (3, 4, 6, 3),
}
"""Residual blocks in each of the four groups."""
TWO_LAYER_BLOCKS = ("resnet18", "resnet34")
"""Those of two 3x3 convolutions; the others have a 1x1, a 3x3 and a 1x1."""
INNER_WIDTHS = {"wide_resnet50_2": 2}
"""Times as many channels in the 3x3 convolutions and nowhere else (Zagoruyko and Komodakis 2016),
as torchvision counts them."""


def _two_layer_block(x, filters: int, stride: int, name: str, normalization: str, padding: str):
    y = conv(x, filters, 3, stride, f"{name}_conv1", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu1")(normalize(y, f"{name}_{{}}1", normalization))
    y = conv(y, filters, 3, 1, f"{name}_conv2", normalization, padding)
    return normalize(y, f"{name}_{{}}2", normalization, last_of_block=True)


def _bottleneck_block(
    x, filters: int, stride: int, name: str, normalization: str, padding: str, inner_width: int
):
    inner = filters // 4 * inner_width
    y = conv(x, inner, 1, 1, f"{name}_conv1", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu1")(normalize(y, f"{name}_{{}}1", normalization))
    y = conv(y, inner, 3, stride, f"{name}_conv2", normalization, padding)
    y = layers.ReLU(name=f"{name}_relu2")(normalize(y, f"{name}_{{}}2", normalization))
    y = conv(y, filters, 1, 1, f"{name}_conv3", normalization, padding)
    return normalize(y, f"{name}_{{}}3", normalization, last_of_block=True)


def _stem(x, filters: int, kind: str, normalization: str, padding: str):
    kernel, stride = (7, 2) if kind == "7x7" else (3, 1)
    x = conv(x, filters, kernel, stride, "stem_conv", normalization, padding)
    x = layers.ReLU(name="stem_relu")(normalize(x, "stem_{}", normalization))
    if kind == "3x3":
        return x
    x, padding = padded(x, 3, 2, "stem_pool", padding)
    return layers.MaxPooling2D(3, strides=2, padding=padding, name="stem_pool")(x)


def resnet(
    name: str,
    image_size: int,
    width: float = 1.0,
    stem: str = "7x7",
    normalization: str = "batch",
    padding: str = "same",
) -> keras.Model:
    """Builds a ResNet without classifier.

    Args:
        name: a key of `BLOCKS`.
        image_size: side of the square input in pixels.
        width: multiplies all channels; the papers' "(2x)" is 2.
        stem: `7x7` (stride 2, then max-pooling), `3x3` (stride 1, no pooling) or `3x3+pool`.
        normalization: a word of `parts.NORMALIZATIONS`.
        padding: a word of `parts.PADDINGS`.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, 3]` to
        representations `[N, d]`, d = 512 x width for resnet18 and resnet34, 2048 x width for the
        others.
    """
    check_normalization(normalization)
    check_padding(padding)
    two_layers = name in TWO_LAYER_BLOCKS
    block = (
        _two_layer_block
        if two_layers
        else partial(_bottleneck_block, inner_width=INNER_WIDTHS.get(name, 1))
    )
    inputs = keras.Input((image_size, image_size, 3), name="images")
    x = _stem(inputs, round(64 * width), stem, normalization, padding)
    for group, blocks in enumerate(BLOCKS[name]):
        filters = round((64 if two_layers else 256) * 2**group * width)
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            prefix = f"group{group + 1}_block{index + 1}"
            shortcut = x
            if stride != 1 or x.shape[-1] != filters:
                shortcut = conv(
                    x, filters, 1, stride, f"{prefix}_shortcut_conv", normalization, padding
                )
                shortcut = normalize(shortcut, f"{prefix}_shortcut_{{}}", normalization)
            y = block(x, filters, stride, prefix, normalization, padding)
            x = layers.ReLU(name=f"{prefix}_relu")(layers.Add(name=f"{prefix}_add")([y, shortcut]))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name=name)
