"""Mean and deviation of a run's images, measured where `views` doesn't give them."""

import json
import shlex

import numpy as np

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.runs.sources import source_options
from pipelines.sources import GivenImages, Images, sample_source
from pipelines.sources.pixels import white

_SAMPLE_IMAGES = 512
_DIGITS = 4


def check_normalization(config: Config, images: GivenImages | None = None) -> None:
    """Raises `ConfigError`, with measured values, if a config has no mean or no deviation.

    Args:
        config: of a run.
        images: those of a run whose `data.source` is "arrays".

    Raises:
        ConfigError: as above.
        SourceError: if the images can't be opened.
    """
    if not config.views.is_normalized:
        channels = config.data.channels
        raise ConfigError(
            f"views.mean: missing; expected {channels} numbers, as data.channels is "
            f"{channels}, and so for views.std. {offer(*measure_channels(config, images))}"
        )


def measure_channels(
    config: Config, images: GivenImages | None = None
) -> tuple[list[float], list[float]]:
    """Measures mean and standard deviation of each channel on up to 512 images.

    The seed decides which.

    Args:
        config: of a run.
        images: those of a run whose `data.source` is "arrays".

    Returns:
        Numbers of pixels in [0, 1], rounded to four digits.

    Raises:
        SourceError: if the images can't be opened.
    """
    sample = sample_source(count=_SAMPLE_IMAGES, **source_options(config, images))
    if sample is None or not len(sample):
        raise ConfigError("views.mean: missing; there are no images that it can be measured on")
    return channel_statistics(sample)


def channel_statistics(images: Images) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of each channel of images, see `measure_channels`.

    A channel of one value has the deviation 1.
    """
    count, total, squares = 0, np.zeros(images.channels), np.zeros(images.channels)
    for index in range(len(images)):
        pixels = images[index].reshape(-1, images.channels) / white(images.dtype)
        count += len(pixels)
        total += pixels.sum(axis=0)
        squares += (pixels**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    return _rounded(mean), _rounded(np.where(std > 1e-9, std, 1.0))


def offer(mean: list[float], std: list[float]) -> str:
    """Returns a sentence with the options that set mean and deviation."""
    keys = (("mean", mean), ("std", std))
    settings = (f"views.{key}={json.dumps(value, separators=(',', ':'))}" for key, value in keys)
    options = (f"--set {shlex.quote(setting)}" for setting in settings)
    return f"Measured here: {' '.join(options)}"


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
