"""The source's images that an export is measured on."""

import numpy as np
from PIL import Image

from byol_tf.config.schema import Config
from byol_tf.runs.data import source_options
from pipelines.sources import SourceError, sample_source

_COMPARED, _CALIBRATION = 300, 200
_SIDES = 2
"""The shorter side of a compared image is at most so many times the encoder's: each format still
has to resize it, and 500 photos of 12 megapixels would take 18 GB."""


def compared_and_calibration(
    config: Config, calibrate: bool
) -> tuple[list[np.ndarray], list[np.ndarray], str | None]:
    """Images to compare nearest neighbours on, others to measure int8's ranges on, and why there
    are none, if there are none.

    Args:
        config: of the run, which says where its images are.
        calibrate: whether there shall be any of the others.

    Returns:
        Two lists of uint8 images. 300 `[H, W, 3]`, each as it is or reduced to twice the size of
        views; and 200 or none `[size, size, 3]`. Where there are fewer images, all of them, or all
        but a third and that third: more of them to judge than to measure ranges, as a wrong verdict
        costs the file.
    """
    options = source_options(config) | {
        "cache": "none"
    }  # a source that holds photos would hold them as they are
    try:
        sample = sample_source(count=_COMPARED + calibrate * _CALIBRATION, **options)
    except SourceError as error:
        return [], [], str(error)
    if sample is None:
        return (
            [],
            [],
            f'data.source "{config.data.source}" has to be prepared first, which a run does',
        )
    size, count = config.views.size, len(sample)
    compared = min(_COMPARED, count - min(_CALIBRATION, max(count // 3, 1))) if calibrate else count
    images = [_reduced(sample[number], _SIDES * size) for number in range(compared)]
    return images, [_square(sample[number], size) for number in range(compared, count)], None


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    """An image whose shorter side is at most `side` pixels, of the same proportions."""
    height, width = image.shape[:2]
    scale = side / min(height, width)
    if scale >= 1.0:
        return image
    return np.asarray(
        Image.fromarray(image).resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
        )
    )


def _square(image: np.ndarray, size: int) -> np.ndarray:
    """The largest centred square, resized as the snippet of LiteRT does it."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.asarray(
        Image.fromarray(image[top : top + side, left : left + side]).resize(
            (size, size), Image.Resampling.BILINEAR
        )
    )


_SIZES = ((427, 640), (427, 333), (211, 640), (97, 61), (31, 47), (17, 113))
"""Height and width in pixels: wide, upright, nearly square, smaller than an encoder's input."""


def sample_photos() -> list[np.ndarray]:
    """Twelve uint8 `[H, W, 3]`: cuts of the two photographs that scikit-learn comes with."""
    from sklearn.datasets import load_sample_images

    cuts = []
    for photo in load_sample_images().images:
        for height, width in _SIZES:
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 3
            cuts.append(photo[top : top + height, left : left + width])
    return cuts
