"""Encoders by name, and a small convolutional one that trains in minutes on a laptop CPU."""

import keras
from keras import layers

from byol_tf.constants import CONVNET_STEM_CHANNELS
from byol_tf.models.networks.blocks import check_normalization, conv, normalize
from byol_tf.models.networks.resnet import BLOCKS, PATCH_STEM, STEMS, resnet

_FILTERS_AND_STRIDES = ((CONVNET_STEM_CHANNELS, 2), (64, 2), (128, 2), (128, 1))
_STEMS = {"3x3": (3, 1), PATCH_STEM: (4, 4)}
"""Kernel and stride of the first convolution, where it isn't 3x3 with stride 2."""


def convnet(
    image_size: int,
    width: float = 1.0,
    normalization: str = "batch",
    stem: str = "7x7",
    channels: int = 3,
) -> keras.Model:
    """Builds four 3x3 convolutions, each with normalisation and ReLU, then average pooling.

    Args:
        image_size: side of the square input in pixels.
        width: multiplies all channels.
        normalization: one of `NORMALIZATIONS`.
        stem: `4x4` for a first convolution of 4x4 with stride 4, `3x3` for one of stride 1, as
            `resnet.resnet` has them; otherwise it is 3x3 with stride 2.
        channels: of the images.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, channels]` to
        representations `[N, 128 x width]`.

    Raises:
        ValueError: for another normalisation, or channels that the groups of `group` don't divide.
    """
    check_normalization(normalization)
    inputs = x = keras.Input((image_size, image_size, channels), name="images")
    for index, (filters, stride) in enumerate(_FILTERS_AND_STRIDES, start=1):
        kernel = 3
        if index == 1:
            kernel, stride = _STEMS.get(stem, (kernel, stride))
        x = conv(x, round(filters * width), kernel, stride, f"conv{index}", normalization)
        x = layers.ReLU(name=f"relu{index}")(normalize(x, f"{{}}{index}", normalization))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name="convnet")


def build_encoder(
    name: str,
    image_size: int,
    width: float = 1.0,
    stem: str = "7x7",
    normalization: str = "batch",
    padding: str = "same",
    zero_init_residual: bool = False,
    channels: int = 3,
) -> keras.Model:
    """Builds an encoder by name.

    Example:
        >>> encoder = byol_tf.build_encoder("resnet18", 96)
        >>> encoder(np.zeros((2, 96, 96, 3), np.float32)).shape
        TensorShape([2, 512])

    Args:
        name: `convnet`, or a key of `resnet.BLOCKS`.
        image_size: side of the square input in pixels.
        width: multiplies all channels.
        stem: first layers, see `resnet.resnet`; `convnet` has `3x3`, `4x4` or its own.
        normalization: one of `NORMALIZATIONS`.
        padding: one of `PADDINGS`; `convnet` ignores it.
        zero_init_residual: see `resnet.resnet`; `convnet` ignores it.
        channels: of the images.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, channels]` to
        representations `[N, d]`.

    Raises:
        ValueError: for another name, stem, normalisation or padding, or channels that the groups of
            `group` don't divide.
    """
    if stem not in STEMS:
        raise ValueError(f"stem: expected one of {', '.join(STEMS)}; received {stem!r}")
    if name == "convnet":
        return convnet(image_size, width, normalization, stem, channels)
    if name in BLOCKS:
        return resnet(
            name, image_size, width, stem, normalization, padding, zero_init_residual, channels
        )
    raise ValueError(
        f"encoder: expected one of {', '.join(('convnet', *BLOCKS))}; received {name!r}"
    )
