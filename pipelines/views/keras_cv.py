"""Colour operations of host views by layers of keras-cv.

Importing keras-cv takes seconds, and 0.9.0, its last release, can't be imported beside Keras 3.16:
`pipelines.views.host_colors` imports this module where the engine is chosen, and nothing else does.
"""

import tensorflow as tf
from keras_cv.layers import (
    Grayscale,
    RandomBrightness,
    RandomContrast,
    RandomHue,
    RandomSaturation,
    Solarization,
)

_VALUES = (0.0, 1.0)
# float32 whatever the global policy is: under mixed_float16 some of the layers return non-finite
# values. The seed is never used: it keeps the layers off TensorFlow's global generator, which
# refuses to exist where operations are made deterministic.
_COMMON = {"dtype": "float32", "seed": 1}


class KerasCVColors:
    """The operations of `HostColors`, by the layers' `augment_images`."""

    def __init__(self) -> None:
        self._brightness = RandomBrightness(factor=0.0, value_range=_VALUES, **_COMMON)
        self._contrast = RandomContrast(factor=0.0, value_range=_VALUES, **_COMMON)
        self._saturation = RandomSaturation(factor=0.5, **_COMMON)
        self._hue = RandomHue(factor=0.0, value_range=_VALUES, **_COMMON)
        self._grayscale = Grayscale(output_channels=3, **_COMMON)
        self._solarize = Solarization(value_range=_VALUES, **_COMMON)

    def brightness(self, views: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._brightness.augment_images(views, tf.reshape(offset, (-1, 1, 1, 1)))

    def contrast(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._contrast.augment_images(views, tf.reshape(factor, (-1, 1, 1, 1)))

    def saturation(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """See `HostColors`; the layer scales by x / (1 - x)."""
        return self._saturation.augment_images(views, factor / (1.0 + factor))

    def hue(self, views: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._hue.augment_images(views, shift)

    def grayscale(self, views: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._grayscale.augment_images(views)

    def solarize(self, views: tf.Tensor, threshold: float) -> tf.Tensor:
        """See `HostColors`; the layer has its threshold on 0..255."""
        thresholds = tf.fill((tf.shape(views)[0], 1, 1, 1), threshold * 255.0)
        return self._solarize.augment_images(
            views, {"additions": tf.zeros_like(thresholds), "thresholds": thresholds}
        )
