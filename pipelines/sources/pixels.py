"""Pixel formats: how many channels of how many bits an image has; resizing and pictures of any.

Most images are RGB of 8 bits. Those of satellites, microscopes and scanners have up to 16 channels
or 16 bits; pixels are whole numbers there too, so that white is the largest number of their type.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_PERCENTILES = (1.0, 99.0)


@dataclass(frozen=True)
class PixelFormat:
    """The format that the images of a data set have in common.

    Attributes:
        channels: 1 to 16.
        depth: bits of a pixel's number: 8, uint8; or 16, uint16.
        range: (low, high), the numbers in a file that become 0 and white; None: those that a
            file's type implies (see `channels.decode_channels`).
    """

    channels: int = 3
    depth: int = 8
    range: tuple[float, float] | None = None

    @property
    def dtype(self) -> np.dtype:
        """The type of pixels, uint8 or uint16."""
        return np.dtype(f"uint{self.depth}")

    @property
    def is_rgb(self) -> bool:
        """True if images are RGB of 8 bits, to which `decoding.decode` converts all others."""
        return self == RGB


RGB = PixelFormat()


def white(dtype: np.dtype | type) -> int:
    """Returns the largest number of a pixel's type: 255 of uint8, 65,535 of uint16."""
    return int(np.iinfo(dtype).max)


def to_pixels(
    numbers: np.ndarray, pixels: PixelFormat, own_range: tuple[float, float] | None = None
) -> np.ndarray:
    """Converts the numbers of a file to pixels, by one rule for all files of a data set.

    The range is `pixels.range`, else the file's own; else unsigned numbers of 8 or 16 bits have all
    that their type holds, and floats lie in [0, 1]. It is mapped linearly to 0 and white, and what
    lies outside is cut off. NaN becomes 0.

    Args:
        numbers: `[height, width, channels]` of a real type.
        pixels: of the data set.
        own_range: of the file.

    Returns:
        The same shape, of the type `pixels.dtype`.

    Raises:
        ValueError: there is no range for numbers of this type.
    """
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    span = pixels.range or own_range
    if span is None and numbers.dtype in (np.uint8, np.uint16):
        span = (0.0, white(numbers.dtype))
    if span is None and numbers.dtype.kind == "f":
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(f"numbers from {low:g} to {high:g}, for which data.range is needed")
        span = (0.0, 1.0)
    if span is None:
        raise ValueError(f"numbers of type {numbers.dtype}, for which data.range is needed")
    top = white(pixels.dtype)
    if numbers.dtype == pixels.dtype and span == (0.0, top):
        return numbers
    precise = np.float32 if numbers.dtype.itemsize <= 2 else np.float64
    scaled: NDArray[np.floating] = numbers.astype(precise)
    scaled -= span[0]
    scaled *= top / (span[1] - span[0])
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0, top)).astype(pixels.dtype)


def resize_image(
    image: np.ndarray,
    width: int,
    height: int,
    resample: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resizes an image, antialiased, by Pillow.

    Args:
        image: uint8 or uint16 `[h, w, channels]`.
        width: of the result.
        height: of the result.
        resample: Pillow's filter.
        box: left, top, right and bottom of the part that is resized; None: all.

    Returns:
        `[height, width, channels]` of the same type.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), resample, box=box))
    # Channel by channel: Pillow would take the fourth for transparency, and knows no fifth.
    number = np.uint8 if image.dtype == np.uint8 else np.float32
    planes = [
        np.asarray(Image.fromarray(plane).resize((width, height), resample, box=box))
        for plane in np.ascontiguousarray(np.moveaxis(image, 2, 0), dtype=number)
    ]
    resized = np.stack(planes, axis=2)
    if image.dtype == np.uint8:
        return resized
    return np.clip(np.rint(resized), 0, white(image.dtype)).astype(image.dtype)


def false_color(
    image: np.ndarray, limits: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Returns a picture of an image with any channels, for people.

    It shows the first three channels as red, green and blue, or the first one as grey where there
    are fewer. RGB of 8 bits stays as it is.

    Args:
        image: uint8, uint16 or float `[height, width, channels]`.
        limits: the numbers that become black and white, of each channel that is shown; None: those
            of `stretch_limits`.

    Returns:
        uint8 `[height, width, 3]`.
    """
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return image
    low, high = limits or stretch_limits(image)
    stretched = (_shown(image) - low) / np.where(high > low, high - low, 1.0)
    picture = np.rint(np.clip(stretched, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def stretch_limits(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the 1st and the 99th percentile of each channel that `false_color` shows."""
    low, high = np.percentile(_shown(image), _PERCENTILES, axis=(0, 1))
    return low, high


def _shown(image: np.ndarray) -> np.ndarray:
    return image[..., :3] if image.shape[2] >= 3 else image[..., :1]
