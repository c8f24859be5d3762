"""Decodes image files of any format to RGB pixels, or to those of another `PixelFormat`.

Pillow decodes all but plain JPEGs (`jpeg.py`) and what it has no format for (`scientific.py`). What
it leaves to the caller is decided here, the same for every source: orientation, transparency and 16
bits.
"""

import functools
from typing import BinaryIO, cast

import numpy as np
from PIL import Image, ImageOps

from pipelines.sources.channels import decode_channels, read_channels_header
from pipelines.sources.image_file import (
    ImageFacts,
    LimitedReader,
    attempt,
    half,
    is_large,
    lacks_exif,
    load_pixels,
    max_bytes,
    one_at_a_time,
    open_image,
    read_orientation,
)
from pipelines.sources.jpeg import decode_plain_jpeg, read_plain_header
from pipelines.sources.pixels import RGB, PixelFormat

_REDUCING_GAP = 2
"""How many times the size that is asked for a JPEG is decoded at, at least: the filter that resizes
it then hardly differs from one on the full picture (Pillow's `Image.thumbnail` does the same)."""
# As PIL.ImageOps.exif_transpose, which also writes a new EXIF block and fails on some broken ones.
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(
    file: BinaryIO,
    *,
    upright: bool = True,
    image_size: int | None = None,
    pixels: PixelFormat = RGB,
) -> tuple[np.ndarray, ImageFacts]:
    """Decodes the first frame of an image file.

    To RGB of 8 bits any photo is converted, as follows. For another `pixels` a file's own channels
    are read, and have to be as many; TIFF stacks, DICOM and `.npy` files are read too (see
    `scientific.py`), and `pixels.to_pixels` maps numbers to pixels.

    Grey becomes R = G = B. Transparency is blended with white. CMYK is converted by Pillow.

    Grey of 16 bits is taken to have as many bits as its largest value needs, of 8, 10, 12, 14 and
    16: cameras of 12 bits write 0 to 4,095 into files of 16. 32-bit integers beyond 16 bits, and
    floats outside [0, 1], are scaled from their smallest to their largest value.

    A JPEG without its end marker is readable if its picture is complete. A picture of more than
    `HALVED_PIXELS` is halved. With `image_size` a JPEG of at least four times that size is decoded
    at 1/2, 1/4 or 1/8 of its own, which is several times as fast.

    Args:
        file: open for reading in binary, at its beginning.
        upright: apply EXIF orientation.
        image_size: to which the caller will resize the shorter side; None for the picture as it is.
        pixels: channels, depth and range of the result.

    Returns:
        uint8 `[height, width, 3]`, or as `pixels` says, and properties of the file. With
        `image_size` the picture may be smaller than they say, its shorter side at least twice that
        size.

    Raises:
        UnreadableImage: the file is truncated, broken or of another format, or has more than
            200,000,000 pixels or more bytes besides the picture than `HEADER_BYTES` (both known
            before memory is allocated); or it has another number of channels than `pixels`.
    """
    if pixels.is_rgb:
        return attempt(lambda readable: _decode(readable, upright, image_size), file)
    return attempt(lambda readable: decode_channels(readable, upright, pixels), file)


def read_header(file: BinaryIO, *, pixels: PixelFormat = RGB) -> ImageFacts:
    """Returns what `decode` states of a file, as far as its header tells.

    Pixels are decoded only where the header isn't enough: of 16 bits, how many hold values; of a
    PNG with EXIF, whether that can be reached.

    Args:
        file: open for reading in binary, at its beginning.
        pixels: channels, depth and range of the result of `decode`.

    Raises:
        UnreadableImage: see `decode`. Files whose pixels are broken may pass.
    """
    if pixels.is_rgb:
        return attempt(_read_header, file)
    return attempt(lambda readable: read_channels_header(readable, pixels), file)


def _decode(file: BinaryIO, upright: bool, image_size: int | None) -> tuple[np.ndarray, ImageFacts]:
    plain = decode_plain_jpeg(file, image_size and _REDUCING_GAP * image_size)
    if plain is not None:
        return plain
    with open_image(file) as image, one_at_a_time(image.size):
        mode, size, deep = image.mode, image.size, ";16" in str(image.tile)
        orientation = read_orientation(image) if upright else 1
        large = is_large(size)
        full = half(size) if large else size
        target = _enough(full, image_size)
        # A JPEG is decoded at a fraction of its size, others can't be.
        drafted = target != size and image.draft(None, target) is not None
        halve = large and not drafted
        load_pixels(image, file, size)
        picture, bits = _to_rgb(image, deep, halve)
        # Pillow's TIFF reader rotates the picture itself while it loads.
        if orientation != 1 and read_orientation(image) != 1:
            picture = picture.transpose(_TRANSPOSITIONS[orientation])
        width, height = picture.size
        if drafted:
            width, height = full[::-1] if orientation >= 5 else full
        return np.asarray(picture), ImageFacts(
            image.format or "?", mode, width, height, orientation != 1, bits, large
        )


def _read_header(file: BinaryIO) -> ImageFacts:
    plain = read_plain_header(file)
    if plain is not None:
        return plain
    with open_image(file) as image:
        deep = image.mode in ("I", "F") or ";16" in image.mode or ";16" in str(image.tile)
        if not deep:
            large = is_large(image.size)
            width, height = half(image.size) if large else image.size
            # Without this, Pillow would decode each PNG to look for EXIF behind the pixels.
            bare = image.format == "PNG" and lacks_exif(LimitedReader(file, max_bytes(image.size)))
            orientation = read_orientation(image) if not bare else 1
            if orientation >= 5 and image.format != "TIFF":  # whose reader states the upright size
                width, height = height, width
            return ImageFacts(
                image.format or "?", image.mode, width, height, orientation != 1, 0, large
            )
    file.seek(0)
    return _decode(file, True, None)[1]


def _enough(size: tuple[int, int], image_size: int | None) -> tuple[int, int]:
    """Returns the smallest size that a picture can be decoded at before it is resized.

    Its shorter side is `_REDUCING_GAP` times `image_size`, or what it was if that is less.
    """
    shorter = min(size)
    if image_size is None or shorter <= _REDUCING_GAP * image_size:
        return size
    width, height = (side * _REDUCING_GAP * image_size // shorter for side in size)
    return width, height


def _to_rgb(image: Image.Image, deep: bool, halve: bool) -> tuple[Image.Image, int]:
    """Returns the picture in RGB, and `ImageFacts.bits`.

    Args:
        image: loaded.
        deep: whether its file has 16 bits a channel.
        halve: return it at half its size.
    """
    bits = 0
    if halve and image.mode in ("L", "LA", "RGB", "RGBA", "CMYK", "I", "F"):
        image, halve = image.reduce(2), False
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        inverted = image.mode.startswith("I;16") and getattr(image, "tag_v2", {}).get(262) == 0
        image, bits = _eight_bits(image)
        if inverted:  # TIFF's "white is zero", which Pillow heeds for 8 bits alone
            image = ImageOps.invert(image)
        image.info = {}  # a transparent grey would be a number of 16 bits
    elif deep:
        image, bits = _brightened(image)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    picture = image.convert("RGB")
    return picture.reduce(2) if halve else picture, bits


def _eight_bits(image: Image.Image) -> tuple[Image.Image, int]:
    """Scales grey of more than 8 bits to mode "L"; returns it and `ImageFacts.bits`."""
    if image.mode != "F":
        image = image.convert("I")
        low, high = cast(tuple[int, int], image.getextrema())
        if low >= 0 and high < 2**16:
            bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
            return image.point(_scale_to_255(2**bits - 1), "L"), bits % 16
    values = np.asarray(image).astype(np.float64)
    low, high, white = values.min(), values.max(), 1.0
    if not np.isfinite([low, high]).all():
        raise ValueError("values that are not finite")
    if low < 0 or high > white:
        values, white = values - low, high - low
    return Image.fromarray(np.rint(values * (255.0 / white)).astype(np.uint8)), 0


def _brightened(image: Image.Image) -> tuple[Image.Image, int]:
    """Scales colours of 16 bits that hold 10, 12 or 14; Pillow has kept their upper 8 bits."""
    colours = image.convert("RGB")
    high = np.asarray(colours).max()
    bits = next((bits for bits in (10, 12, 14) if 0 < high < 2 ** (bits - 8)), 0)
    if not bits:
        return image, 0
    table = _scale_to_255(2 ** (bits - 8) - 1)[:256]
    alpha = image.getchannel("A") if "A" in image.getbands() else None
    colours = colours.point([*table] * 3)
    if alpha is not None:
        colours.putalpha(alpha)
    return colours, bits


@functools.cache
def _scale_to_255(white: int) -> list[int]:
    """Returns for 0 to 65,535 the number of 0 to 255 that it becomes, where `white` becomes 255."""
    scaled = np.rint(np.arange(2**16) * (255.0 / white))
    return np.minimum(scaled, 255).astype(int).tolist()
