"""A small convolutional encoder: it sees enough steps in minutes on a laptop, which a ResNet doesn't."""

import keras
from keras import layers

from byol_tf.networks.parts import check_normalization, conv, normalize

_CHANNELS_AND_STRIDES = ((32, 2), (64, 2), (128, 2), (128, 1))


def convnet(image_size: int, width: float = 1.0, normalization: str = "batch") -> keras.Model:
    """Builds four 3x3 convolutions, each normalised and with ReLU, then average pooling.

    Args:
        image_size: side of the square input in pixels.
        width: multiplies all channels.
        normalization: a word of `parts.NORMALIZATIONS`.

    Returns:
        A functional model from normalised float images `[N, image_size, image_size, 3]` to representations `[N, 128 x width]`.
    """
    check_normalization(normalization)
    inputs = x = keras.Input((image_size, image_size, 3), name="images")
    for index, (channels, stride) in enumerate(_CHANNELS_AND_STRIDES, start=1):
        x = conv(x, round(channels * width), 3, stride, f"conv{index}", normalization)
        x = layers.ReLU(name=f"relu{index}")(normalize(x, f"{{}}{index}", normalization))
    outputs = layers.GlobalAveragePooling2D(name="representation")(x)
    return keras.Model(inputs, outputs, name="convnet")
