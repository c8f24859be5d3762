"""A small residual network."""

import keras
from keras import layers

from byol_tf.models.networks.blocks import conv, normalize


def residual(image_size: int) -> keras.Model:
    """Builds a 2x2 stem with stride 2, then three stages of a 3x3 convolution with stride 2 and a
    residual block, and average pooling: 256 features."""
    inputs = keras.Input((image_size, image_size, 3), name="images")
    x = _conv_bn_relu(inputs, 32, 2, 2, "stem")
    for stage, channels in enumerate((64, 128, 256), start=1):
        x = _conv_bn_relu(x, channels, 3, 2, f"stage{stage}_down")
        y = _conv_bn_relu(x, channels, 3, 1, f"stage{stage}_block1")
        y = conv(y, channels, 3, 1, f"stage{stage}_block2_conv", "batch")
        y = normalize(y, f"stage{stage}_block2_{{}}", "batch")
        x = layers.ReLU(name=f"stage{stage}_relu")(layers.Add(name=f"stage{stage}_add")([x, y]))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name="residual")


def _conv_bn_relu(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str
) -> keras.KerasTensor:
    x = conv(x, channels, kernel, stride, f"{name}_conv", "batch")
    return layers.ReLU(name=f"{name}_relu")(normalize(x, f"{name}_{{}}", "batch"))
