"""Building blocks of encoders and heads: convolutions, linear layers, normalisation."""

from typing import Any, get_args

import keras
from keras import layers

from byol_tf.constants import GROUPS, Normalization, Padding
from byol_tf.models.networks.batch_norm import BatchNorm
from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense

NORMALIZATIONS: tuple[str, ...] = get_args(Normalization)
"""`batch`; `layer`, over channels and positions; `group`, with 16 groups, and all kernels
standardised; `none`; and `data_init`, a scale and an offset that one batch sets ("BYOL works even
without batch statistics", section 3)."""
PADDINGS: tuple[str, ...] = get_args(Padding)
"""Padding of layers with a stride: `same` as TensorFlow, one pixel more at the bottom and right of
an even map; `symmetric` as PyTorch, `kernel // 2` pixels on each side. With odd kernels the two
differ only where there is a stride."""
_SHORT_NAMES = {"batch": "bn", "layer": "ln", "group": "gn", "data_init": "di"}


def conv(
    x: keras.KerasTensor,
    filters: int,
    kernel: int,
    stride: int,
    name: str,
    normalization: str,
    padding: str = "same",
) -> keras.KerasTensor:
    """Applies a convolution without bias, with truncated-normal fan-in initialisation.

    Args:
        x: symbolic `[N, H, W, C]`.
        filters: number of output channels.
        kernel: side of the kernel, odd.
        stride: stride in both directions.
        name: name of the layer.
        normalization: one of `NORMALIZATIONS`; `group` standardises the kernel.
        padding: one of `PADDINGS`.
    """
    layer_class = WSConv2D if normalization == "group" else Conv2D
    x, keras_padding = pad(x, kernel, stride, name, padding)
    return layer_class(
        filters,
        kernel,
        strides=stride,
        padding=keras_padding,
        use_bias=False,
        kernel_initializer=_fan_in_initializer(),
        name=name,
    )(x)


def pad(
    x: keras.KerasTensor, kernel: int, stride: int, name: str, padding: str
) -> tuple[keras.KerasTensor, str]:
    """Pads the input of a convolution or of max-pooling.

    `symmetric` pads with zeros, which is right for max-pooling too where a ReLU comes before.

    Returns:
        The padded map, and the `padding` argument of the Keras layer that follows.
    """
    if padding == "same" or kernel == 1 or stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"


def dense(
    x: keras.KerasTensor, units: int, name: str, normalization: str, use_bias: bool = True
) -> keras.KerasTensor:
    """Applies a linear layer with truncated-normal fan-in initialisation.

    `normalization` is one of `NORMALIZATIONS`; `group` standardises the kernel.
    """
    layer_class = WSDense if normalization == "group" else layers.Dense
    initializer = _fan_in_initializer()
    return layer_class(units, use_bias=use_bias, kernel_initializer=initializer, name=name)(x)


def normalize(
    x: keras.KerasTensor,
    name: str,
    normalization: str,
    last_of_block: bool = False,
    zero_init: bool = False,
    scale: bool = True,
    center: bool = True,
) -> keras.KerasTensor:
    """Normalises the channels of `[N, C]` or `[N, H, W, C]`; `none` returns the input.

    Args:
        x: symbolic tensor.
        name: name of the layer, in which `{}` stands for `bn`, `ln`, `gn` or `di`.
        normalization: one of `NORMALIZATIONS`.
        last_of_block: whether the output is added to a residual block's shortcut; `data_init`
            starts these layers at zero.
        zero_init: whether the scale starts at zero with the other normalisations too.
        scale: whether there is a trainable scale; `data_init` always has one.
        center: whether there is a trainable offset; `data_init` always has one.

    Raises:
        ValueError: for `group`, if the channels aren't a multiple of 16.
    """
    if normalization == "none":
        return x
    name = name.format(_SHORT_NAMES[normalization])
    if normalization == "data_init":
        return DataInit(gain=0.0 if last_of_block else 1.0, name=name)(x)
    settings: dict[str, Any] = {
        "scale": scale,
        "center": center,
        "gamma_initializer": "zeros" if zero_init else "ones",
    }
    if normalization == "batch":
        return BatchNorm(name=name, **settings)(x)
    return GroupNorm(GROUPS if normalization == "group" else 1, name=name, **settings)(x)


def _fan_in_initializer() -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
