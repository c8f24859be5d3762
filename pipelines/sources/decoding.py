"""One image file -> RGB pixels, whatever kind of picture it is.

Pillow decodes. What it leaves to the caller is settled here, the same for every source: orientation, transparency, 16 bits, size limits.
"""

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 178_956_970  # where Pillow itself refuses an image as a decompression bomb: twice Image.MAX_IMAGE_PIXELS

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {  # as in PIL.ImageOps.exif_transpose, which fails on some broken EXIF blocks because it writes a new one
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """A file is no readable image. The text is a short reason."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file was before it became RGB pixels.

    Attributes:
        format: as Pillow names it: "JPEG", "PNG", ...
        mode: as Pillow names it: "RGB", "L", "CMYK", "P", ...
        width: in pixels, upright.
        height: in pixels, upright.
        turned: whether EXIF said to turn or mirror it.
    """

    format: str
    mode: str
    width: int
    height: int
    turned: bool


def decode(file: BinaryIO, *, upright: bool = True) -> tuple[np.ndarray, Facts]:
    """Decodes the first frame of an image file.

    Grey becomes R = G = B. Transparency is laid on white. 16-bit values are divided by 257. Whole 32-bit numbers beyond 16 bits, and floats
    outside [0, 1], run from their smallest to their largest value. CMYK is converted as Pillow does it.

    Args:
        file: open for reading in binary, at its beginning.
        upright: obey EXIF orientation.

    Returns:
        uint8 `[height, width, 3]`, and what the file was.

    Raises:
        UnreadableImage: not an image, cut short, broken, or more than 178,956,970 pixels (known from the header, before memory is taken).
    """
    try:
        with Image.open(file) as image:
            mode, orientation = image.mode, _orientation(image) if upright else 1
            image.load()
            picture = _to_rgb(image)
            if orientation != 1 and _orientation(image) != 1:  # Pillow's TIFF reader turns the picture itself while it loads
                picture = picture.transpose(_UPRIGHT[orientation])
            return np.asarray(picture), Facts(image.format or "?", mode, picture.width, picture.height, orientation != 1)
    except Exception as error:  # on broken input Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error, KeyError, ...
        raise UnreadableImage(_reason(error)) from error


def plain_jpeg(file: BinaryIO, *, upright: bool = True) -> bytes | None:
    """Returns the whole file if it is a JPEG of which TensorFlow can decode any part to the pixels that `decode` gives.

    That is one in colour or grey which isn't to be turned. Only the header is looked at.

    Args:
        file: open for reading in binary, at its beginning.
        upright: obey EXIF orientation.

    Returns:
        None for any other file, unreadable ones included.
    """
    try:
        with Image.open(file) as image:
            plain = image.format == "JPEG" and image.mode in ("RGB", "L") and not (upright and _orientation(image) != 1)
    except Exception:  # `decode` says what is wrong
        return None
    if not plain:
        return None
    file.seek(0)
    return file.read()


def read_header(file: BinaryIO) -> tuple[int, int]:
    """Returns the upright (height, width) that the header states, without decoding. Raises UnreadableImage."""
    try:
        with Image.open(file) as image:
            lying = _orientation(image) >= 5 and image.format != "TIFF"  # Pillow's TIFF reader states the upright size
            return image.size if lying else (image.height, image.width)
    except Exception as error:  # as in decode
        raise UnreadableImage(_reason(error)) from error


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises many kinds, and is no reason to lose the photo
        return 1
    return value if value in _UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Grey values of more than 8 bits, `[height, width]` -> uint8."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ValueError("values that are not finite")
    full = 1.0 if mode == "F" else 65_535.0
    if low < 0 or high > full:
        values, full = values - low, high - low
    return np.rint(values * (255.0 / full)).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]
