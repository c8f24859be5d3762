"""Images that exports are compared on, and those that int8 is calibrated on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from byol_tf.config.schema import Config
from byol_tf.runs.sources import pixel_format, source_options
from pipelines.sources import RGB, PixelFormat, SourceError, sample_source
from pipelines.sources.pixels import resize_image, white

_COMPARED, _CALIBRATION = 300, 200
_MAX_SIDE = 2
"""Limit of a compared image's shorter side, relative to the encoder's: each format still has to
resize it, while 500 photos of 12 megapixels as they are would take 18 GB."""
_PHOTO_SIZES = ((427, 640), (427, 333), (211, 640), (97, 61), (31, 47), (17, 113))
"""Height and width in pixels: wide, upright, nearly square, smaller than an encoder's input."""


@dataclass(frozen=True)
class Samples:
    """Images for the verification of an export.

    Attributes:
        photos: photos of odd sizes, the same for every run of such images.
        images: `[H, W, channels]` each, images from the run's source.
        calibration: `[size, size, channels]` each, other images from the run's source, on which the
            ranges of int8 are measured.
        unavailable: why there are no images from the run's source; None if there are some.
    """

    photos: Sequence[np.ndarray]
    images: Sequence[np.ndarray] = ()
    calibration: Sequence[np.ndarray] = ()
    unavailable: str | None = None


def load_samples(config: Config, calibrate: bool) -> Samples:
    """Loads twelve photos, up to 300 images of a run's source, and others for calibration.

    Images larger than twice the size of views are reduced to it.

    Args:
        config: the run's config, with the location of its images.
        calibrate: whether images for calibration are needed, up to 200 of them. Of a source of
            fewer than 500 images a third is for calibration: the comparison needs more, as a wrong
            result discards the file.
    """
    photos = sample_photos(pixel_format(config))
    # Without a cache: a source that caches photos would hold them at full size.
    options = source_options(config) | {"cache": "none"}
    try:
        source = sample_source(count=_COMPARED + calibrate * _CALIBRATION, **options)
    except SourceError as error:
        return Samples(photos, unavailable=str(error))
    if source is None:
        return Samples(
            photos,
            unavailable=f'data.source "{config.data.source}" has to be prepared first, which a run '
            "does",
        )
    (size, *_), count = config.inference_preparation, len(source)
    reserved = min(_CALIBRATION, max(count // 3, 1)) if calibrate else 0
    compared = min(_COMPARED, count - reserved)
    return Samples(
        photos,
        [reduce_image(source[index], _MAX_SIDE * size) for index in range(compared)],
        [centre_square(source[index], size) for index in range(compared, count)]
        if calibrate
        else [],
    )


def reduce_image(image: np.ndarray, side: int) -> np.ndarray:
    """Returns the image reduced so that its shorter side has at most `side` pixels."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale >= 1.0:
        return image
    return resize_image(
        image, round(width * scale), round(height * scale), Image.Resampling.BICUBIC
    )


def centre_square(image: np.ndarray, size: int) -> np.ndarray:
    """Returns the largest centred square, resized as LiteRT's snippet does."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return resize_image(square, size, size, Image.Resampling.BILINEAR)


def sample_photos(pixels: PixelFormat = RGB) -> list[np.ndarray]:
    """Returns twelve `[H, W, channels]`: crops of the two photographs in scikit-learn.

    Red, green and blue are repeated for further channels.
    """
    from sklearn.datasets import load_sample_images

    crops = []
    for rgb in load_sample_images().images:
        photo = rgb[..., np.arange(pixels.channels) % 3].astype(pixels.dtype)
        photo *= white(pixels.dtype) // 255
        for height, width in _PHOTO_SIZES:
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 3
            crops.append(photo[top : top + height, left : left + width])
    return crops
