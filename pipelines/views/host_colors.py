"""Colour operations of host views: what they are, and whose layers do the pixel work.

The layers of Keras and of keras-cv separate what is sampled from what is done to the pixels. Here
only the latter is used: the amounts come from `random_params`, in the papers' conventions, so that
no layer has a generator of its own and an image gets the same view in whatever batch it is.
"""

from typing import Literal, Protocol

import keras
import tensorflow as tf

HostEngine = Literal["keras", "keras_cv"]
_VALUES = (0.0, 1.0)


class HostColors(Protocol):
    """Colour operations on views, float32 `[N, size, size, 3]` in [0, 1], in and out.

    Brightness and contrast take views of any number of channels. Amounts are float32 `[N]`, one for
    each view.
    """

    def brightness(self, views: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """Adds an offset to every pixel."""

    def contrast(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """Scales the distance to each channel's mean."""

    def saturation(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """Scales HSV's saturation."""

    def hue(self, views: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        """Shifts HSV's hue by a fraction of the circle, from -1 to 1."""

    def grayscale(self, views: tf.Tensor) -> tf.Tensor:
        """Replaces all channels by the luma."""

    def solarize(self, views: tf.Tensor, threshold: float) -> tf.Tensor:
        """Inverts the pixel values from a threshold in [0, 1] upwards."""


class KerasColors:
    """The operations of `HostColors`, by the `transform_images` of layers of Keras."""

    def __init__(self) -> None:
        # float32 whatever the global policy is. The seed is never used; without one, each layer
        # would take one from Python's global generator.
        common = {"dtype": "float32", "seed": 1, "data_format": "channels_last"}
        layers = keras.layers
        self._brightness = layers.RandomBrightness(0.0, value_range=_VALUES, **common)
        self._contrast = layers.RandomContrast(0.0, value_range=_VALUES, **common)
        self._saturation = layers.RandomSaturation(0.0, value_range=_VALUES, **common)
        self._hue = layers.RandomHue(0.0, value_range=_VALUES, **common)
        self._grayscale = layers.RandomGrayscale(1.0, **common)
        self._solarize = layers.Solarization(value_range=_VALUES, **common)

    def brightness(self, views: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        offset = tf.reshape(offset, (-1, 1, 1, 1))
        return self._brightness.transform_images(views, {"rgb_delta": offset})

    def contrast(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        factor = tf.reshape(factor, (-1, 1, 1, 1))
        return self._contrast.transform_images(views, {"contrast_factor": factor})

    def saturation(self, views: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._saturation.transform_images(views, {"factor": factor})

    def hue(self, views: tf.Tensor, shift: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._hue.transform_images(views, {"factor": shift})

    def grayscale(self, views: tf.Tensor) -> tf.Tensor:
        """See `HostColors`."""
        return self._grayscale.transform_images(views, tf.constant(True))

    def solarize(self, views: tf.Tensor, threshold: float) -> tf.Tensor:
        """See `HostColors`; the layer has its threshold on 0..255."""
        amounts = {"additions": 0.0, "thresholds": threshold * 255.0}
        return self._solarize.transform_images(views, amounts)


def host_colors(engine: HostEngine) -> type[HostColors]:
    """Returns the class of an engine's colour operations, which takes no arguments.

    Args:
        engine: `keras` or `keras_cv`.

    Raises:
        ImportError: if keras-cv can't be imported, as beside Keras 3.16; the text says what to use.
    """
    if engine == "keras":
        return KerasColors
    try:
        from pipelines.views.keras_cv import KerasCVColors
    except Exception as error:  # not only ImportError: keras-cv uses private names of Keras
        raise ImportError(
            f'views.engine: "keras_cv" needs keras-cv 0.9.0 and Keras up to 3.15; importing it '
            f"beside Keras {keras.__version__} failed ({type(error).__name__}: {error}). Use "
            '"keras", whose views are the same to rounding, or "fused"'
        ) from error
    return KerasCVColors
