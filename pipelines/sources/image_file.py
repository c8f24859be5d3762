"""Opens image files with Pillow, and checks that they are complete.

Files are not trusted, so none may cost more memory or time than its picture: which formats are
opened, how much of a file is read and how many pixels are decoded is limited here.
"""

import contextlib
import hashlib
import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, TypeVar, cast

from PIL import Image, ImageFile, UnidentifiedImageError

from pipelines.sources import heic
from pipelines.sources.scientific import TIFF_STARTS

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
"""Largest file of AVIF and HEIC, whose decoders read all of it before they state its size."""
_BYTES_PER_PIXEL = 16  # the most that a format needs: four numbers of 32 bits
TOO_LONG = "more bytes than its picture could need"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_EXIF_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")  # by which texts hold EXIF too
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_JPEG = ("JPEG", "MPO")  # a JPEG with further pictures behind the first
_large_picture = threading.RLock()  # held while one is decoded

_ORIENTATION = 0x0112  # EXIF tag


class UnreadableImage(Exception):
    """A file that is no readable image; the text is a short reason."""


class LimitedReader:
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
            raise UnreadableImage(TOO_LONG)
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


def attempt(read: Callable[[BinaryIO], T], file: BinaryIO) -> T:
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


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Opens an image by its header. Raises what Pillow raises, and UnreadableImage."""
    start = file.read(30)
    budget = HEADER_BYTES
    is_webp = start[8:12] == b"WEBP"
    if is_webp or start[4:8] == b"ftyp":
        length = file.seek(0, os.SEEK_END)
        if length > (max_bytes(_webp_size(start)) if is_webp else WHOLE_FILE_BYTES):
            raise UnreadableImage(TOO_LONG)
        budget += length
    file.seek(0)
    limited = LimitedReader(file, budget)
    image = _identified(limited)
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
    limited.budget += max_bytes(image.size) - budget
    if limited.budget < 0:
        raise UnreadableImage(TOO_LONG)
    return image


def _identified(file: LimitedReader) -> ImageFile.ImageFile:
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


def _webp_size(start: bytes) -> tuple[int, int]:
    """Returns the size that a WebP states, whose decoder reads all of it first; (0, 0) if none.

    Args:
        start: its first 30 bytes (https://developers.google.com/speed/webp/docs/riff_container).
    """
    kind, stated = start[12:16], int.from_bytes(start[21:30], "little")
    if kind == b"VP8X":
        size = (stated >> 24 & 0xFFFFFF) + 1, (stated >> 48) + 1
    elif kind == b"VP8L":
        size = (stated & 0x3FFF) + 1, (stated >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        size = stated >> 40 & 0x3FFF, stated >> 56 & 0x3FFF
    else:
        size = 0, 0
    return size if size[0] * size[1] <= MAX_PIXELS else (0, 0)


def max_bytes(size: tuple[int, int]) -> int:
    """Returns how many bytes of a file with a picture of this size may be read."""
    return HEADER_BYTES + _BYTES_PER_PIXEL * size[0] * size[1]


def longest_file(facts: ImageFacts | None, channels: int) -> int:
    """Returns how many bytes a file may have that is read as a whole, not only its picture.

    A small file can be of any length: what follows the picture takes no disk space as a hole.

    Args:
        facts: what the header states; None where it can't be read.
        channels: of the pixels that the file is decoded to.
    """
    if facts is None:
        return HEADER_BYTES
    scale = 2 if facts.halved else 1
    return channels * max_bytes((scale * facts.width, scale * facts.height))


def is_large(size: tuple[int, int]) -> bool:
    """Returns whether a picture is read at half its width and height."""
    return size[0] * size[1] > HALVED_PIXELS


def half(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the size of a picture that was read at half its width and height."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def load_pixels(image: ImageFile.ImageFile, file: BinaryIO, size: tuple[int, int]) -> None:
    """Decodes an opened image, of which Pillow doesn't find all damage.

    Args:
        image: opened by `open_image`.
        file: its file.
        size: width and height of the picture in the file.

    Raises:
        UnreadableImage: the file is truncated or damaged.
        Exception: what Pillow raises of damaged files.
    """
    if image.format in heic.readable() and heic.is_truncated(file):
        raise UnreadableImage("image file is truncated")
    image.load()
    if image.format == "PNG":
        _check_png(LimitedReader(file, max_bytes(size)))
    elif image.format in _JPEG:
        _check_jpeg(file, max_bytes(size))


def one_at_a_time(size: tuple[int, int]) -> contextlib.AbstractContextManager:
    """Returns a lock for a picture that takes much memory while it is decoded."""
    return _large_picture if is_large(size) else contextlib.nullcontext()


def read_orientation(image: Image.Image) -> int:
    """Returns EXIF's orientation, 1 where there is none. Raises what `image.load` raises."""
    if image.format == "PNG":
        # Its EXIF may follow the pixels, so Pillow would load them below and swallow the error; the
        # next load succeeds then, with a black picture.
        image.load()
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a broken EXIF block raises many types, and is no reason to lose the photo
        return 1
    return value if value in range(1, 9) else 1


def _repaired(file: BinaryIO, error: Exception) -> BinaryIO | None:
    """Returns a file with the same picture that Pillow may read where it failed; None if none.

    A JPEG gets the end marker that it lacks, if its picture is complete. A PNG loses text and
    colour profile, which aren't needed and of which Pillow refuses more than a megabyte.
    """
    file.seek(0)
    start = file.read(24)
    file.seek(0)
    if start[:8] == _PNG_START and isinstance(error, (ValueError, UnidentifiedImageError)):
        width, height = struct.unpack(">II", start[16:])
        if width * height > MAX_PIXELS:
            return None
        return _without_text(LimitedReader(file, max_bytes((width, height))))
    if start[:2] == JPEG_START and "truncated" in str(error):
        with open_image(file) as image:
            file.seek(0)
            data = file.read(max_bytes(image.size)).removesuffix(b"\xff")  # half an end marker
        if _is_complete_jpeg(data):
            return io.BytesIO(data + JPEG_END)
    return None


def _without_text(file: LimitedReader) -> BinaryIO:
    """Returns a PNG without its colour profile and its compressed text."""
    parts = [file.read(8)]
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        if name[:1].islower() and name not in (b"tRNS", b"eXIf"):  # not needed for pixels
            file.seek(length + 4, os.SEEK_CUR)
        else:
            parts += [header, file.read(length + 4)]
        if name == b"IEND":  # whatever follows
            break
    return io.BytesIO(b"".join(parts))


def _is_complete_jpeg(data: bytes) -> bool:
    """Returns whether a JPEG has its end marker, or lacks nothing but that.

    The decoder doesn't say; but what stands behind a complete picture doesn't change its pixels. Of
    a picture in several scans, as progressive ones are, any number may be missing.
    """
    scan = first_scan(data)
    if JPEG_END in data[scan:]:
        return True
    digests = set()
    for end in (b"", b"\x55" * 64, b"\xaa" * 64):
        with open_image(io.BytesIO(data + end + JPEG_END)) as image, one_at_a_time(image.size):
            if "progressive" in image.info or data[scan + 4] != getattr(image, "layers", 0):
                return False
            digests.add(hashlib.sha256(image.tobytes()).digest())
    return len(digests) == 1


def first_scan(data: bytes) -> int:
    """Returns where a JPEG's pixels begin, behind all metadata."""
    at = len(JPEG_START)
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


def _check_png(file: LimitedReader) -> None:
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


def lacks_exif(file: LimitedReader) -> bool:
    """Returns whether a PNG has no EXIF block, which may stand behind the pixels."""
    file.seek(8)
    while len(header := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", header)
        start = file.read(min(length, len(_PNG_EXIF_TEXTS[0])))
        if name == b"IEND":  # whatever follows
            return True
        if name == b"eXIf" or (name in _PNG_TEXTS and start.startswith(_PNG_EXIF_TEXTS)):
            return False
        file.seek(length - len(start) + 4, os.SEEK_CUR)
    return True


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
