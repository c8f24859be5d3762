"""Decodes image files of any format to RGB pixels, or to those of another `PixelFormat`.

Pillow decodes, and `scientific.py` what it has no format for. What it leaves to the caller is
decided here, the same for every source: orientation, transparency, 16 bits, which formats are
opened, and how much of a file is read. Files are not trusted, so none may cost more memory or time
than its picture.
"""

import contextlib
import functools
import hashlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, TypeVar, cast

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipelines.sources import heic
from pipelines.sources.pixels import RGB, PixelFormat, to_pixels
from pipelines.sources.scientific import (
    TIFF_STARTS,
    ScientificImage,
    check_size,
    open_scientific,
    package,
)

T = TypeVar("T")

MAX_PIXELS = 200_000_000
"""Pixels of the largest picture that is read, that of a 200-megapixel telephone."""
HALVED_PIXELS = 2**26
"""A picture of more pixels is read at half its width and height, and one at a time, so that no
photo takes more memory than one of 67 megapixels."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000")
"""Formats that are opened, by Pillow's names and whatever the file is called, as are those of
`heic.readable`. Pillow knows others: for one of them Ghostscript runs the file (EPS), most are read
by little-tested code, and which there are depends on how Pillow was built."""
HEADER_BYTES = 24 * 2**20
"""Largest part of a file that is read before the size of the picture is known. Metadata of real
photos stay below 16 MB: a JPEG's colour profile has at most 255 parts of 64 kB."""
WHOLE_FILE_BYTES = 2**28
"""Largest file of WebP, AVIF and HEIC, whose decoders read all of it before they state its size."""
_REDUCING_GAP = 2
"""How many times the size that is asked for a JPEG is decoded at, at least: the filter that resizes
it then hardly differs from one on the full picture (Pillow's `Image.thumbnail` does the same)."""
_BYTES_PER_PIXEL = 16  # the most that a format needs: four numbers of 32 bits
_TOO_LONG = "more bytes than its picture could need"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_EXIF_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # by which texts hold EXIF too
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG_TAIL = 2**12
"""Bytes at the end of a JPEG in which its end marker is looked for: some writers pad files."""
_BANDS = {"L": 1, "I;16": 1, "I;16B": 1, "I;16L": 1, "I": 1, "F": 1, "LA": 2, "RGB": 3, "RGBA": 4}
"""Pillow's modes whose channels are a file's own -> their number."""
_JPEG = ("JPEG", "MPO")  # a JPEG with further pictures behind the first
_large_picture = threading.RLock()  # held while one is decoded

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
            raise UnreadableImage(_TOO_LONG)
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
        bits: of grey values that a file stores in more bits than they need: 8, 10, 12 or 14, see
            `decode`; else 0.
        halved: whether it was read at half its size, see `HALVED_PIXELS`.
    """

    format: str
    mode: str
    width: int
    height: int
    rotated: bool
    bits: int = 0
    halved: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, upright."""
        return self.height, self.width


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
        return _attempt(lambda readable: _decode(readable, upright, image_size), file)
    return _attempt(lambda readable: _decode_channels(readable, upright, pixels), file)


def plain_jpeg(file: BinaryIO, *, upright: bool = True) -> bytes | None:
    """Returns the file if it is a JPEG of which TensorFlow decodes any part as `decode` does.

    That is one in colour or grey which isn't to be rotated or halved. Only the header is examined:
    TensorFlow's decoder refuses some damaged files that `decode` reads.

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
                and not _is_large(image.size)
                and not (upright and _orientation(image) != 1)
            )
            limit = _budget(image.size)
    except Exception:  # `decode` raises the reason
        return None
    # A longer file is readable all the same: `decode` stops where the picture ends.
    if not plain or file.seek(0, os.SEEK_END) > limit:
        return None
    file.seek(0)
    data = file.read()
    # Of a file that was cut, TensorFlow may decode the upper part and not notice; `decode` does.
    return data if _JPEG_END in data[-_JPEG_TAIL:] else None


def read_header(file: BinaryIO, *, upright: bool = True, pixels: PixelFormat = RGB) -> ImageFacts:
    """Returns what `decode` states of a file, as far as its header tells.

    Pixels are decoded only where the header isn't enough: of 16 bits, how many hold values; of a
    PNG with EXIF, whether that can be reached.

    Args:
        file: open for reading in binary, at its beginning.
        upright: apply EXIF orientation.
        pixels: channels, depth and range of the result of `decode`.

    Raises:
        UnreadableImage: see `decode`. Files whose pixels are broken may pass.
    """
    if pixels.is_rgb:
        return _attempt(lambda readable: _read_header(readable, upright), file)
    return _attempt(
        lambda readable: _channels_facts(_open_channels(readable, pixels), upright, pixels), file
    )


def _attempt(read: Callable[[BinaryIO], T], file: BinaryIO) -> T:
    """Calls `read` with a file, or with a repaired copy of it. Raises UnreadableImage."""
    try:
        try:
            return read(file)
        except (OSError, ValueError) as error:
            repaired = _repaired(file, error)
            if repaired is None:
                raise
            return read(repaired)
    # On broken input Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error,
    # KeyError, ...
    except Exception as error:
        raise UnreadableImage(_reason(error, file)) from error


def _decode(file: BinaryIO, upright: bool, image_size: int | None) -> tuple[np.ndarray, ImageFacts]:
    with _opened(file) as image, _one_at_a_time(image.size):
        mode, size, deep = image.mode, image.size, ";16" in str(image.tile)
        orientation = _orientation(image) if upright else 1
        if image.format in heic.readable() and heic.is_truncated(file):
            raise UnreadableImage("image file is truncated")
        large = _is_large(size)
        full = _half(size) if large else size
        target = _enough(full, image_size)
        # A JPEG is decoded at a fraction of its size, others can't be.
        drafted = target != size and image.draft(None, target) is not None
        halve = large and not drafted
        image.load()
        if image.format == "PNG":
            _check_png(_LimitedReader(file, _budget(size)))
        elif image.format in _JPEG:
            _check_jpeg(file, _budget(size))
        picture, bits = _to_rgb(image, deep, halve)
        # Pillow's TIFF reader rotates the picture itself while it loads.
        if orientation != 1 and _orientation(image) != 1:
            picture = picture.transpose(_TRANSPOSITIONS[orientation])
        width, height = picture.size
        if drafted:
            width, height = full[::-1] if orientation >= 5 else full
        return np.asarray(picture), ImageFacts(
            image.format or "?", mode, width, height, orientation != 1, bits, large
        )


def _decode_channels(
    file: BinaryIO, upright: bool, pixels: PixelFormat
) -> tuple[np.ndarray, ImageFacts]:
    image = _open_channels(file, pixels)
    numbers = to_pixels(image.read(), pixels, image.range)
    if image.inverted:
        numbers = np.iinfo(numbers.dtype).max - numbers
    numbers = _turned(numbers, image.orientation if upright else 1)
    return np.ascontiguousarray(numbers), _channels_facts(image, upright, pixels)


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
    image = _opened(file)
    deep = ";16" in str(image.tile) and image.mode in _BANDS
    mode = image.mode
    if mode not in _BANDS:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    width, height = image.size
    shape = (height, width, _BANDS[mode])
    check_size(shape, np.dtype(np.int32 if mode in ("I", "F") else np.uint16))

    def read() -> np.ndarray:
        with _one_at_a_time(image.size):
            if image.format in heic.readable() and heic.is_truncated(file):
                raise UnreadableImage("image file is truncated")
            image.load()
            if image.format == "PNG":
                _check_png(_LimitedReader(file, _budget(image.size)))
            elif image.format in _JPEG:
                _check_jpeg(file, _budget(image.size))
            if deep and image.format == "PNG" and shape[2] > 1:  # of which Pillow keeps 8 bits
                return _deep_png(file, shape)
            picture = image if image.mode == mode else image.convert(mode)
            return np.asarray(picture).reshape(shape)

    span = (0.0, 65535.0) if mode == "I" else None  # Pillow's mode of some grey of 16 bits
    return ScientificImage(image.format or "?", shape, read, span, orientation=_orientation(image))


def _read_header(file: BinaryIO, upright: bool) -> ImageFacts:
    with _opened(file) as image:
        deep = image.mode in ("I", "F") or ";16" in image.mode or ";16" in str(image.tile)
        if not deep:
            large = _is_large(image.size)
            width, height = _half(image.size) if large else image.size
            # Without this, Pillow would decode each PNG to look for EXIF behind the pixels.
            bare = image.format == "PNG" and _lacks_exif(_LimitedReader(file, _budget(image.size)))
            orientation = _orientation(image) if upright and not bare else 1
            if orientation >= 5 and image.format != "TIFF":  # whose reader states the upright size
                width, height = height, width
            return ImageFacts(
                image.format or "?", image.mode, width, height, orientation != 1, 0, large
            )
    file.seek(0)
    return _decode(file, upright, None)[1]


def _opened(file: BinaryIO) -> ImageFile.ImageFile:
    """Opens an image by its header. Raises what Pillow raises, and UnreadableImage."""
    start = file.read(12)
    budget = HEADER_BYTES
    if start[8:] == b"WEBP" or start[4:8] == b"ftyp":
        length = file.seek(0, os.SEEK_END)
        if length > WHOLE_FILE_BYTES:
            raise UnreadableImage(_TOO_LONG)
        budget += length
    file.seek(0)
    limited = _LimitedReader(file, budget)
    image = _identified(limited)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    limited.budget += _budget(image.size) - budget
    if limited.budget < 0:
        raise UnreadableImage(_TOO_LONG)
    return image


def _identified(file: _LimitedReader) -> ImageFile.ImageFile:
    """Opens an image as `Image.open` does, but without its limit of pixels.

    That is one for the whole process, lower than `MAX_PIXELS`, and beyond half of it Pillow warns.
    """
    Image.init()
    start = file.read(16)
    for name in (*FORMATS, *heic.readable()):
        factory, accepts = Image.OPEN[name]
        accepted = accepts is None or accepts(start)
        if not accepted or isinstance(accepted, str):  # text: why it can't be read here
            continue
        file.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            return factory(cast(IO[bytes], file), "")
    raise UnidentifiedImageError


def _budget(size: tuple[int, int]) -> int:
    """Returns how many bytes of a file with a picture of this size may be read."""
    return HEADER_BYTES + _BYTES_PER_PIXEL * size[0] * size[1]


def _is_large(size: tuple[int, int]) -> bool:
    return size[0] * size[1] > HALVED_PIXELS


def _enough(size: tuple[int, int], image_size: int | None) -> tuple[int, int]:
    """Returns the smallest size that a picture can be decoded at before it is resized.

    Its shorter side is `_REDUCING_GAP` times `image_size`, or what it was if that is less.
    """
    shorter = min(size)
    if image_size is None or shorter <= _REDUCING_GAP * image_size:
        return size
    width, height = (side * _REDUCING_GAP * image_size // shorter for side in size)
    return width, height


def _half(size: tuple[int, int]) -> tuple[int, int]:
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def _one_at_a_time(size: tuple[int, int]) -> contextlib.AbstractContextManager:
    """Returns a lock for a picture that takes much memory while it is decoded."""
    return _large_picture if _is_large(size) else contextlib.nullcontext()


def _repaired(file: BinaryIO, error: Exception) -> BinaryIO | None:
    """Returns a file with the same picture that Pillow may read where it failed; None if none.

    A JPEG gets the end marker that it lacks, if its picture is complete. A PNG loses text and
    colour profile, which aren't needed and of which Pillow refuses more than a megabyte.
    """
    file.seek(0)
    start = file.read(24)
    file.seek(0)
    if start[:8] == _PNG_START and isinstance(error, ValueError):
        width, height = struct.unpack(">II", start[16:])
        if width * height > MAX_PIXELS:
            return None
        return _without_text(_LimitedReader(file, _budget((width, height))))
    if start[:2] == _JPEG_START and "truncated" in str(error):
        with _opened(file) as image:
            file.seek(0)
            data = file.read(_budget(image.size)).removesuffix(b"\xff")  # half an end marker
        if _is_complete_jpeg(data):
            return io.BytesIO(data + _JPEG_END)
    return None


def _without_text(file: _LimitedReader) -> BinaryIO:
    """Returns a PNG without its colour profile and its compressed text."""
    parts = [file.read(8)]
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        if name in (b"iCCP", *_PNG_TEXTS[1:]):
            file.seek(length + 4, os.SEEK_CUR)
        else:
            parts += [header, file.read(length + 4)]
    return io.BytesIO(b"".join(parts))


def _is_complete_jpeg(data: bytes) -> bool:
    """Returns whether a JPEG has its end marker, or lacks nothing but that.

    The decoder doesn't say; but what stands behind a complete picture doesn't change its pixels. Of
    a picture in several scans, as progressive ones are, any number may be missing.
    """
    scan = _first_scan(data)
    if _JPEG_END in data[scan:]:
        return True
    digests = set()
    for end in (b"", b"\x55" * 64, b"\xaa" * 64):
        with _opened(io.BytesIO(data + end + _JPEG_END)) as image, _one_at_a_time(image.size):
            if "progressive" in image.info or data[scan + 4] != getattr(image, "layers", 0):
                return False
            digests.add(hashlib.sha256(image.tobytes()).digest())
    return len(digests) == 1


def _first_scan(data: bytes) -> int:
    """Returns where a JPEG's pixels begin, behind all metadata."""
    at = len(_JPEG_START)
    while data[at : at + 2] not in (b"\xff\xda", b""):
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at


def _check_jpeg(file: BinaryIO, budget: int) -> None:
    """Raises UnreadableImage where zeros stand for the rest of a picture, as after a lost copy."""
    file.seek(-2, os.SEEK_END)
    if file.read() != bytes(2):
        return
    file.seek(0)
    data = file.read(budget).rstrip(b"\0")
    if data.endswith(b"\xff"):  # FF 00 is a number of the picture
        data += b"\0"
    if not _is_complete_jpeg(data):
        raise UnreadableImage("image file is truncated; zeros follow")


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


def _lacks_exif(file: _LimitedReader) -> bool:
    """Returns whether a PNG has no EXIF block, which may stand behind the pixels."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        start = file.read(min(length, len(_PNG_EXIF_TEXTS[0])))
        if name == b"eXIf" or (name in _PNG_TEXTS and start.startswith(_PNG_EXIF_TEXTS)):
            return False
        file.seek(length - len(start) + 4, os.SEEK_CUR)
    return True


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
        image, bits = _eight_bits(image)
        image.info = {}  # a transparent grey would be a number of 16 bits
    elif deep:
        image, bits = _brightened(image)
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    picture = image.convert("RGB")
    return picture.reduce(2) if halve else picture, bits


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
    return imagecodecs.png_decode(file.read(_budget((shape[1], shape[0])))).reshape(shape)


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


def _reason(error: Exception, file: BinaryIO) -> str:
    if isinstance(error, UnidentifiedImageError):
        file.seek(0)
        if file.read(4) in TIFF_STARTS:
            return "a TIFF that isn't grey or RGB; data.channels=N reads one of N channels"
        file.seek(0)
        return heic.missing_reader(file.read(64)) or "not an image of a supported format"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS:,} pixels"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())
    return (text or type(error).__name__)[:120]
