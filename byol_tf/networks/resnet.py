"""ResNet v1.5 (He et al. 2015, stride on the 3x3 convolution) as in deepmind-research `byol/utils/networks.py`."""

import keras
from keras import layers

from byol_tf.networks.normalization import batch_norm

BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
    "resnet200": (3, 24, 36, 3),
}
"""Residual blocks in each of the four groups."""
_TWO_LAYER_BLOCKS = ("resnet18", "resnet34")


def conv(x, filters: int, kernel: int, stride: int, name: str):
    """Convolution without bias, SAME padding, truncated-normal fan-in initialisation."""
    return layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal"),
        name=name,
    )(x)


def _two_layer_block(x, filters: int, stride: int, name: str):
    y = conv(x, filters, 3, stride, f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu1")(batch_norm(f"{name}_bn1")(y))
    y = conv(y, filters, 3, 1, f"{name}_conv2")
    return batch_norm(f"{name}_bn2")(y)


def _bottleneck_block(x, filters: int, stride: int, name: str):
    inner = filters // 4
    y = conv(x, inner, 1, 1, f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu1")(batch_norm(f"{name}_bn1")(y))
    y = conv(y, inner, 3, stride, f"{name}_conv2")
    y = layers.ReLU(name=f"{name}_relu2")(batch_norm(f"{name}_bn2")(y))
    y = conv(y, filters, 1, 1, f"{name}_conv3")
    return batch_norm(f"{name}_bn3")(y)


def _stem(x, filters: int, kind: str):
    x = conv(x, filters, 7, 2, "stem_conv") if kind == "7x7" else conv(x, filters, 3, 1, "stem_conv")
    x = layers.ReLU(name="stem_relu")(batch_norm("stem_bn")(x))
    if kind == "3x3":
        return x
    return layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)


def resnet(name: str, image_size: int, width: float = 1.0, stem: str = "7x7") -> keras.Model:
    """Builds a ResNet without classifier.

    Args:
        name: a key of `BLOCKS`.
        image_size: side of the square input in pixels.
        width: multiplies all channels; the papers' "(2x)" is 2.
        stem: `7x7` (stride 2, then max-pooling), `3x3` (stride 1, no pooling) or `3x3+pool`.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, 3]` to representations `[N, d]`, d = 512 x width for
        resnet18 and resnet34, 2048 x width for the others.
    """
    two_layers = name in _TWO_LAYER_BLOCKS
    block = _two_layer_block if two_layers else _bottleneck_block
    inputs = keras.Input((image_size, image_size, 3), name="images")
    x = _stem(inputs, round(64 * width), stem)
    for group, blocks in enumerate(BLOCKS[name]):
        filters = round((64 if two_layers else 256) * 2**group * width)
        for index in range(blocks):
            stride = 2 if group > 0 and index == 0 else 1
            prefix = f"group{group + 1}_block{index + 1}"
            shortcut = x
            if stride != 1 or x.shape[-1] != filters:
                shortcut = batch_norm(f"{prefix}_shortcut_bn")(conv(x, filters, 1, stride, f"{prefix}_shortcut_conv"))
            y = block(x, filters, stride, prefix)
            x = layers.ReLU(name=f"{prefix}_relu")(layers.Add(name=f"{prefix}_add")([y, shortcut]))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name=name)
