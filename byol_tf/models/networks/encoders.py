"""Encoders by name, and a small convolutional one that trains in minutes on a laptop CPU."""

import keras
from keras import layers

from byol_tf.constants import CONVNET_STEM_CHANNELS, ENCODERS
from byol_tf.errors import check_choice
from byol_tf.models.networks.blocks import NORMALIZATIONS, conv, normalize
from byol_tf.models.networks.resnet import PATCH_STEM, STEMS, resnet

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

    The arguments are those of `build_encoder`; representations are `[N, 128 x width]`.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
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
        name: `convnet`, or a ResNet of `constants.ENCODERS`.
        image_size: side of the square input in pixels.
        width: multiplies all channels.
        stem: `7x7` (stride 2, then max-pooling), `3x3` (stride 1, no pooling), `3x3+pool`, or
            `4x4` (stride 4, no pooling: patches without overlap, as in ConvNeXt, Liu et al., 2022,
            https://arxiv.org/abs/2201.03545, section 2.3). The first convolution of `convnet` is
            that of `3x3` or `4x4`, or else 3x3 with stride 2.
        normalization: one of `NORMALIZATIONS`.
        padding: one of `PADDINGS`; `convnet` ignores it.
        zero_init_residual: whether the scale of the last normalisation of each residual block
            starts at 0 (Goyal et al., 2017, https://arxiv.org/abs/1706.02677, section 5.1), as with
            `data_init` it always does; `convnet` ignores it.
        channels: of the images.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, channels]` to
        representations `[N, d]`.

    Raises:
        ValueError: for another name, stem, normalisation or padding, or channels that the groups of
            `group` don't divide.
    """
    check_choice("encoder", name, ENCODERS)
    check_choice("stem", stem, STEMS)
    if name == "convnet":
        return convnet(image_size, width, normalization, stem, channels)
    return resnet(
        name, image_size, width, stem, normalization, padding, zero_init_residual, channels
    )
