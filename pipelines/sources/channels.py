"""Decodes images of any number of channels, of 8 or 16 bits, with the channels of their own."""

from typing import BinaryIO

import numpy as np

from pipelines.sources.image_file import (
    ImageFacts,
    UnreadableImage,
    load_pixels,
    max_bytes,
    one_at_a_time,
    open_image,
    read_orientation,
)
from pipelines.sources.pixels import PixelFormat, to_pixels
from pipelines.sources.scientific import ScientificImage, check_size, open_scientific, package

_BANDS = {"L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""Pillow's modes whose channels are a file's own -> their number."""


def decode_channels(
    file: BinaryIO, upright: bool, pixels: PixelFormat
) -> tuple[np.ndarray, ImageFacts]:
    """Decodes an image to the pixels of another format than RGB.

    Args:
        file: open for reading in binary.
        upright: apply EXIF orientation.
        pixels: channels, depth and range of the result.

    Returns:
        `[height, width, channels]`, and properties of the file.

    Raises:
        UnreadableImage: it is damaged, or has another number of channels.
        Exception: what Pillow and other packages raise of damaged files.
    """
    image = _open_channels(file, pixels)
    numbers = to_pixels(image.read(), pixels, image.range)
    if image.inverted:
        numbers = np.iinfo(numbers.dtype).max - numbers
    numbers = _turned(numbers, image.orientation if upright else 1)
    return np.ascontiguousarray(numbers), _channels_facts(image, upright, pixels)


def read_channels_header(file: BinaryIO, pixels: PixelFormat) -> ImageFacts:
    """Returns what `decode_channels` states of a file, by its header. Raises what that raises."""
    return _channels_facts(_open_channels(file, pixels), True, pixels)


def _channels_facts(image: ScientificImage, upright: bool, pixels: PixelFormat) -> ImageFacts:
    height, width, channels = image.shape
    orientation = image.orientation if upright else 1
    if orientation >= 5:
        height, width = width, height
    mode = f"{channels} x {pixels.depth} bits"
    return ImageFacts(image.format, mode, width, height, orientation != 1)


def _open_channels(file: BinaryIO, pixels: PixelFormat) -> ScientificImage:
    """Opens a file of any format. Raises UnreadableImage for another number of channels."""
    image = open_scientific(file)
    if image is None:
        file.seek(0)
        image = _photo_channels(file)
    channels = image.shape[2]
    if channels != pixels.channels:
        raise UnreadableImage(
            f"{channels} channel{'s' * (channels > 1)}, and data.channels is {pixels.channels}; "
            f"data.channels={channels} reads it"
        )
    return image


def _photo_channels(file: BinaryIO) -> ScientificImage:
    """Opens a photo with its own channels: grey 1, RGB 3, with transparency 2 or 4."""
    image = open_image(file)
    deep = ";16" in str(image.tile) and image.mode in _BANDS
    mode = image.mode
    if mode not in _BANDS:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    width, height = image.size
    shape = (height, width, _BANDS[mode])
    check_size(shape, np.dtype(np.int32 if mode in ("I", "F") else np.uint16))

    def read() -> np.ndarray:
        with one_at_a_time(image.size):
            load_pixels(image, file, image.size)
            if deep and image.format == "PNG" and shape[2] > 1:  # of which Pillow keeps 8 bits
                return _deep_png(file, shape)
            picture = image if image.mode == mode else image.convert(mode)
            return np.asarray(picture).reshape(shape)

    span = (0.0, 65535.0) if mode == "I" else None  # Pillow's mode of some grey of 16 bits
    return ScientificImage(
        image.format or "?", shape, read, span, orientation=read_orientation(image)
    )


def _turned(numbers: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image `[height, width, channels]` upright, by EXIF's orientation."""
    if orientation in (5, 6, 7, 8):
        numbers = numbers.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        numbers = numbers[::-1]
    if orientation in (2, 3, 6, 7):
        numbers = numbers[:, ::-1]
    return numbers


def _deep_png(file: BinaryIO, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes a PNG of 16 bits a channel, whose header and checksums are right."""
    imagecodecs = package("imagecodecs", "tiff")
    file.seek(0)
    return imagecodecs.png_decode(file.read(max_bytes((shape[1], shape[0])))).reshape(shape)
