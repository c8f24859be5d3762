"""What networks are put together from: convolutions, linear layers and one kind of
normalisation."""

import keras
from keras import layers

from byol_tf.models.networks.batch_norm import batch_norm
from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense

NORMALIZATIONS = ("batch", "layer", "group", "none", "data_init")
"""`batch`, `layer` (over channels and places), `group` (16 groups, and all kernels standardised),
`none`, and `data_init`: a scale and an offset that one batch sets (paper without batch statistics,
section 3)."""
PADDINGS = ("same", "symmetric")
"""How a layer with a stride pads: `same` as TensorFlow, one place more at the bottom and right of
an even map; `symmetric` as PyTorch, `kernel // 2` places on each side. With odd kernels the two
differ only where there is a stride."""
_GROUPS = 16
_SHORT = {"batch": "bn", "layer": "ln", "group": "gn", "data_init": "di"}


def check_normalization(normalization: str) -> None:
    """`ValueError` for a word that isn't in `NORMALIZATIONS`."""
    if normalization not in NORMALIZATIONS:
        raise ValueError(
            f"normalization: expected one of {', '.join(NORMALIZATIONS)}; received "
            f"{normalization!r}"
        )


def check_padding(padding: str) -> None:
    """`ValueError` for a word that isn't in `PADDINGS`."""
    if padding not in PADDINGS:
        raise ValueError(f"padding: expected one of {', '.join(PADDINGS)}; received {padding!r}")


def conv(
    x, filters: int, kernel: int, stride: int, name: str, normalization: str, padding: str = "same"
):
    """Convolution without bias, truncated-normal fan-in initialisation; `kernel` is odd, `padding`
    a word of `PADDINGS`."""
    kind = WSConv2D if normalization == "group" else Conv2D
    x, padding = padded(x, kernel, stride, name, padding)
    return kind(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=_by_fan_in(),
        name=name,
    )(x)


def padded(x, kernel: int, stride: int, name: str, padding: str):
    """(The map that a layer of this kernel and stride gets, the word that Keras then has for its
    padding.)

    `symmetric` puts zeros around, which after a ReLU do for max-pooling too.
    """
    if padding == "same" or kernel == 1 or stride == 1:
        return x, "same"
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x), "valid"


def dense(x, units: int, name: str, normalization: str, use_bias: bool = True):
    """Linear layer, truncated-normal fan-in initialisation."""
    kind = WSDense if normalization == "group" else layers.Dense
    return kind(units, use_bias=use_bias, kernel_initializer=_by_fan_in(), name=name)(x)


def normalize(x, name: str, normalization: str, last_of_block: bool = False):
    """Normalises the channels of `[N, C]` or `[N, H, W, C]`; with `none` it returns what it gets.

    Args:
        x: symbolic tensor.
        name: of the layer, with `{}` where the kind is named: `bn`, `ln`, `gn` or `di`.
        normalization: a word of `NORMALIZATIONS`.
        last_of_block: whether a residual block's sum comes next; `data_init` starts these at zero.

    Raises:
        ValueError: for `group`, if the channels don't divide by 16.
    """
    if normalization == "none":
        return x
    name = name.format(_SHORT[normalization])
    if normalization == "batch":
        return batch_norm(name)(x)
    if normalization == "data_init":
        return DataInit(gain=0.0 if last_of_block else 1.0, name=name)(x)
    return GroupNorm(_GROUPS if normalization == "group" else 1, name=name)(x)


def _by_fan_in():
    return keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
