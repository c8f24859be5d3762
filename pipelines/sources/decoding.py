"""Decodes image files of any format to RGB pixels.

Pillow decodes. What it leaves to the caller is decided here, the same for every source:
orientation, transparency, 16 bits, which formats are opened, and how much of a file is read. Files
are not trusted, so none may cost more memory or time than its picture.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.sources import heic

# Pillow itself rejects a larger image as a decompression bomb: twice Image.MAX_IMAGE_PIXELS.
MAX_PIXELS = 178_956_970

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""Formats that are opened, by Pillow's names and whatever the file is called, as are those of
`heic.readable`. Pillow knows others: for one of them Ghostscript runs the file (EPS), most are read
by little-tested code, and which there are depends on how Pillow was built."""
HEADER_BYTES = 24 * 2**20
"""Largest part of a file that is read before the size of the picture is known. Metadata of real
photos stay below 16 MB: a JPEG's colour profile has at most 255 parts of 64 kB. HEIC and AVIF files
are read completely."""
_BYTES_PER_PIXEL = 16  # the most that a format needs: four numbers of 32 bits

_ORIENTATION = 0x0112  # EXIF tag
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


class UnreadableImage(Exception):
    """A file that is no readable image; the text is a short reason."""


class _LimitedReader:
    """A file of which at most `budget` bytes can be read.

    Its text, profiles and further frames may be of any length.

    Args:
        file: the file to read from.
        budget: number of bytes that may be read.
    """

    def __init__(self, file: BinaryIO, budget: int) -> None:
        self._file = file
        self.budget = budget

    def read(self, size: int | None = -1) -> bytes:
        """Reads as a file does. Raises UnreadableImage when the budget is spent."""
        # One byte more than the budget tells a longer file from one that just fits.
        limit = self.budget + 1 if size is None or size < 0 else min(size, self.budget + 1)
        data = self._file.read(limit)
        self.budget -= len(data)
        if self.budget < 0:
            raise UnreadableImage("more bytes than its picture could need")
        return data

    def __getattr__(self, name: str) -> Any:  # Pillow uses seek, tell, and others by format
        return getattr(self._file, name)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Properties of a file before it became RGB pixels.

    Attributes:
        format: as Pillow names it: "JPEG", "PNG", ...
        mode: as Pillow names it: "RGB", "L", "CMYK", "P", ...
        width: in pixels, upright.
        height: in pixels, upright.
        rotated: whether it was rotated or mirrored because EXIF says so.
    """

    format: str
    mode: str
    width: int
    height: int
    rotated: bool


def decode(file: BinaryIO, *, upright: bool = True) -> tuple[np.ndarray, ImageFacts]:
    """Decodes the first frame of an image file.

    Grey becomes R = G = B. Transparency is blended with white. 16-bit values are divided by 257.
    32-bit integers beyond 16 bits, and floats outside [0, 1], are scaled from their smallest to
    their largest value. CMYK is converted by Pillow.

    Args:
        file: open for reading in binary, at its beginning.
        upright: apply EXIF orientation.

    Returns:
        uint8 `[height, width, 3]`, and properties of the file.

    Raises:
        UnreadableImage: the file is truncated, broken or of another format, or has more than
            178,956,970 pixels or more bytes besides the picture than `HEADER_BYTES` (both known
            before memory is allocated).
    """
    try:
        with _opened(file) as image:
            mode, orientation = image.mode, _orientation(image) if upright else 1
            if image.format in heic.readable() and heic.is_truncated(file):
                raise UnreadableImage("image file is truncated")
            image.load()
            if image.format == "PNG":
                _check_png(_LimitedReader(file, _budget(image)))
            picture = _to_rgb(image)
            # Pillow's TIFF reader rotates the picture itself while it loads.
            if orientation != 1 and _orientation(image) != 1:
                picture = picture.transpose(_TRANSPOSITIONS[orientation])
            return np.asarray(picture), ImageFacts(
                image.format or "?", mode, picture.width, picture.height, orientation != 1
            )
    # On broken input Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error,
    # KeyError, ...
    except Exception as error:
        raise UnreadableImage(_reason(error, file)) from error


def plain_jpeg(file: BinaryIO, *, upright: bool = True) -> bytes | None:
    """Returns the file if it is a JPEG of which TensorFlow decodes any part as `decode` does.

    That is one in colour or grey which isn't to be rotated. Only the header is examined.

    Args:
        file: open for reading in binary, at its beginning.
        upright: apply EXIF orientation.

    Returns:
        Its bytes; None for any other file, unreadable ones included.
    """
    try:
        with _opened(file) as image:
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and not (upright and _orientation(image) != 1)
            )
            limit = _budget(image)
    except Exception:  # `decode` raises the reason
        return None
    # A longer file is readable all the same: `decode` stops where the picture ends.
    if not plain or file.seek(0, os.SEEK_END) > limit:
        return None
    file.seek(0)
    return file.read()


def read_header(file: BinaryIO) -> tuple[int, int]:
    """Returns the upright (height, width) that the header states, without decoding.

    Raises:
        UnreadableImage: see `decode`.
    """
    try:
        with _opened(file) as image:
            # Pillow's TIFF reader states the upright size.
            sideways = _orientation(image) >= 5 and image.format != "TIFF"
            return image.size if sideways else (image.height, image.width)
    except Exception as error:  # as in decode
        raise UnreadableImage(_reason(error, file)) from error


def _opened(file: BinaryIO) -> Image.Image:
    """Opens an image by its header. Raises what Pillow raises, and UnreadableImage."""
    limited = _LimitedReader(file, HEADER_BYTES)
    image = Image.open(limited, formats=(*FORMATS, *heic.readable()))
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:  # Pillow's own limit is a variable that other packages may have raised
        image.close()
        raise Image.DecompressionBombError
    limited.budget += _budget(image) - HEADER_BYTES
    return image


def _budget(image: Image.Image) -> int:
    """Returns how many bytes of a file with a picture of this size may be read."""
    return HEADER_BYTES + _BYTES_PER_PIXEL * image.width * image.height


def _check_png(file: _LimitedReader) -> None:
    """Compares the checksums of the pixels, which Pillow ignores.

    A file whose second half is zeros would be half a picture.
    """
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        if name == b"IEND":
            return
        if name != b"IDAT":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        checksum = zlib.crc32(name)
        while length:
            block = file.read(min(length, 2**20))
            if not block:  # truncated after the last pixel
                return
            length -= len(block)
            checksum = zlib.crc32(block, checksum)
        if file.read(4) not in (struct.pack(">I", checksum), b""):
            raise UnreadableImage("checksum of the pixels is wrong")


def _orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation, 1 where there is none. Raises what `image.load` raises."""
    if image.format == "PNG":
        # Its EXIF may follow the pixels, so Pillow would load them below and swallow the error; the
        # next load succeeds then, with a black picture.
        image.load()
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises many types, and is no reason to lose the photo
        return 1
    return value if value in _TRANSPOSITIONS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Scales grey values of more than 8 bits, `[height, width]`, to uint8."""
    values = values.astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite([low, high]).all():
        raise ValueError("values that are not finite")
    white = 1.0 if mode == "F" else 65_535.0
    if low < 0 or high > white:
        values, white = values - low, high - low
    return np.rint(values * (255.0 / white)).astype(np.uint8)


def _reason(error: Exception, file: BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        return heic.missing_reader(file.read(64)) or "not an image of a supported format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]
