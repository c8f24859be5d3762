"""One image file -> RGB pixels, whatever kind of picture it is.

Pillow decodes. What it leaves to the caller is settled here, the same for every source:
orientation, transparency, 16 bits, which kinds of file are opened, and how much of one is read. A
file comes from anywhere, so none may cost more than its picture.
"""

import os
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.sources import heic

# where Pillow itself refuses an image as a decompression bomb: twice Image.MAX_IMAGE_PIXELS
MAX_PIXELS = 178_956_970

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""What is opened everywhere, by Pillow's names and whatever the file is called; beside
`heic.readable`. Pillow knows more: one of them has Ghostscript run the file (EPS), most are read by
code that few have tried to break, and which there are depends on how Pillow was built."""
HEADER_BYTES = 24 * 2**20
"""At most so much is read before the size of the picture is known. Metadata of real photos stay
below 16 MB: a JPEG's colour profile has at most 255 parts of 64 kB. Of HEIC and AVIF, the whole
file is read before."""
_BYTES_PER_PIXEL = 16  # the most that a format needs for one: four numbers of 32 bits

_ORIENTATION = 0x0112  # EXIF tag
# as in PIL.ImageOps.exif_transpose, which fails on some broken EXIF blocks because it writes a new
# one
_UPRIGHT = {
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


class _Metered:
    """A file of which only so much is read: what lies beside the picture (text, profiles, frames
    that follow) may be of any length.

    Args:
        file: to be read from.
        budget: bytes that may be read.
    """

    def __init__(self, file: BinaryIO, budget: int) -> None:
        self._file = file
        self.budget = budget

    def read(self, size: int | None = -1) -> bytes:
        """As a file does. Raises UnreadableImage when the budget is spent."""
        wanted = self.budget + 1 if size is None or size < 0 else min(size, self.budget + 1)
        data = self._file.read(wanted)
        self.budget -= len(data)
        if self.budget < 0:
            raise UnreadableImage("more bytes than its picture could need")
        return data

    def __getattr__(
        self, name: str
    ) -> Any:  # Pillow asks for seek and tell, and by format for more
        return getattr(self._file, name)


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

    Grey becomes R = G = B. Transparency is laid on white. 16-bit values are divided by 257. Whole
    32-bit numbers beyond 16 bits, and floats outside [0, 1], run from their smallest to their
    largest value. CMYK is converted as Pillow does it.

    Args:
        file: open for reading in binary, at its beginning.
        upright: obey EXIF orientation.

    Returns:
        uint8 `[height, width, 3]`, and what the file was.

    Raises:
        UnreadableImage: of no kind that is read, cut short, broken, more than 178,956,970 pixels,
            or more bytes beside the picture than `HEADER_BYTES` (both known before memory is
            taken).
    """
    try:
        with _opened(file) as image:
            mode, orientation = image.mode, _orientation(image) if upright else 1
            if image.format in heic.readable() and heic.cut_short(file):
                raise UnreadableImage("image file is truncated")
            image.load()
            if image.format == "PNG":
                _check_png(_Metered(file, _budget(image)))
            picture = _to_rgb(image)
            if (
                orientation != 1 and _orientation(image) != 1
            ):  # Pillow's TIFF reader turns the picture itself while it loads
                picture = picture.transpose(_UPRIGHT[orientation])
            return np.asarray(picture), Facts(
                image.format or "?", mode, picture.width, picture.height, orientation != 1
            )
    # on broken input Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error,
    # KeyError, ...
    except Exception as error:
        raise UnreadableImage(_reason(error, file)) from error


def plain_jpeg(file: BinaryIO, *, upright: bool = True) -> bytes | None:
    """Returns the whole file if it is a JPEG of which TensorFlow can decode any part to the pixels
    that `decode` gives.

    That is one in colour or grey which isn't to be turned. Only the header is looked at.

    Args:
        file: open for reading in binary, at its beginning.
        upright: obey EXIF orientation.

    Returns:
        None for any other file, unreadable ones included.
    """
    try:
        with _opened(file) as image:
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and not (upright and _orientation(image) != 1)
            )
            most = _budget(image)
    except Exception:  # `decode` says what is wrong
        return None
    if (
        not plain or file.seek(0, os.SEEK_END) > most
    ):  # `decode` stops reading where the picture ends
        return None
    file.seek(0)
    return file.read()


def read_header(file: BinaryIO) -> tuple[int, int]:
    """Returns the upright (height, width) that the header states, without decoding. Raises
    UnreadableImage."""
    try:
        with _opened(file) as image:
            lying = (
                _orientation(image) >= 5 and image.format != "TIFF"
            )  # Pillow's TIFF reader states the upright size
            return image.size if lying else (image.height, image.width)
    except Exception as error:  # as in decode
        raise UnreadableImage(_reason(error, file)) from error


def _opened(file: BinaryIO) -> Image.Image:
    """The image by its header, with nothing decoded. Raises what Pillow raises, and
    UnreadableImage."""
    metered = _Metered(file, HEADER_BYTES)
    image = Image.open(metered, formats=(*FORMATS, *heic.readable()))
    pixels = image.width * image.height
    if (
        pixels > MAX_PIXELS
    ):  # Pillow's own limit is a variable that any other package may have lifted
        image.close()
        raise Image.DecompressionBombError
    metered.budget += _budget(image) - HEADER_BYTES
    return image


def _budget(image: Image.Image) -> int:
    """Bytes that a file of this size of picture may have read of it."""
    return HEADER_BYTES + _BYTES_PER_PIXEL * image.width * image.height


def _check_png(file: _Metered) -> None:
    """Compares the checksums of the pixels, which Pillow passes over: with zeros for its second
    half a file would be half a picture."""
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
            part = file.read(min(length, 2**20))
            if not part:  # cut behind the last pixel
                return
            length -= len(part)
            checksum = zlib.crc32(part, checksum)
        if file.read(4) not in (struct.pack(">I", checksum), b""):
            raise UnreadableImage("checksum of the pixels is wrong")


def _orientation(image: Image.Image) -> int:
    """What EXIF says, 1 where it says nothing. Raises what `image.load` does."""
    if image.format == "PNG":
        # Its EXIF may lie behind the pixels, so Pillow would load them below. That a load failed
        # has to be heard: the next one succeeds, with a black picture.
        image.load()
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


def _reason(error: Exception, file: BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        return heic.what_to_install(file.read(64)) or "not an image of a kind that is read"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]
