"""Reads plain JPEGs several times as fast as Pillow, with the same bits.

A plain one has no metadata that change its pixels, as EXIF does, and is of moderate size. Of these
Pillow takes more time for its own work than for the decoding. All others, and those that seem
damaged, are left to `decoding.py`.
"""

import os
from typing import BinaryIO

import numpy as np
import simplejpeg

from pipelines.sources.image_file import (
    JPEG_END,
    JPEG_START,
    ImageFacts,
    is_large,
    max_bytes,
    open_image,
    read_orientation,
)

_MAX_BYTES = 2**22
JPEG_HEADER_BYTES = 2**16
"""Bytes of a JPEG that hold the header of most: one piece of metadata has no more."""
_TAIL_BYTES = 2**12
"""Bytes at the end of a JPEG in which its end marker is looked for: some writers pad files."""
# Second bytes of markers (ITU T.81, table B.1).
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, in Huffman's code
_ICC = 0xE2  # or, by its first bytes, further pictures in the file
_SCAN = 0xDA
_PLAIN = (*_FRAMES, 0xC4, 0xDB, 0xDD, 0xE0, _ICC, 0xFE)  # with tables, JFIF and comments


def decode_plain_jpeg(
    file: BinaryIO, max_side: int | None = None
) -> tuple[np.ndarray, ImageFacts] | None:
    """Decodes a plain JPEG.

    Args:
        file: open for reading in binary, at its beginning.
        max_side: of the shorter side of the picture; None: any.

    Returns:
        uint8 `[height, width, 3]` and properties of the file, those of `decoding.decode`. None for
        any other file, which is at its beginning again.
    """
    if file.seek(0, os.SEEK_END) > _MAX_BYTES:
        file.seek(0)
        return None
    file.seek(0)
    data = file.read()
    file.seek(0)
    facts = _plain_facts(data)
    if facts is None or data[-2:] != JPEG_END or (max_side and min(facts.size) > max_side):
        return None
    try:
        # Strict: damage from which the decoder can recover is an error too, and left to Pillow.
        return simplejpeg.decode_jpeg(data, "RGB", strict=True), facts
    except ValueError:
        return None


def read_plain_header(file: BinaryIO) -> ImageFacts | None:
    """Returns properties of a plain JPEG by its header; None for any other file.

    Args:
        file: open for reading in binary, at its beginning, where it is again afterwards.
    """
    head = file.read(JPEG_HEADER_BYTES)
    file.seek(0)
    return _plain_facts(head)


def _plain_facts(data: bytes) -> ImageFacts | None:
    """Returns properties of a plain JPEG; None where its header isn't one, or isn't complete."""
    if data[:2] != JPEG_START:
        return None
    facts = None
    at = 2
    while data[at : at + 1] == b"\xff":
        marker = data[at + 1] if at + 1 < len(data) else 0
        if marker == _SCAN:
            return facts
        content = at + 4
        if marker not in _PLAIN or (
            marker == _ICC and data[content : content + 12] != b"ICC_PROFILE\0"
        ):
            return None
        if marker in _FRAMES:
            bits, *sides, channels = data[content : content + 6].ljust(6, b"\0")
            height, width = 256 * sides[0] + sides[1], 256 * sides[2] + sides[3]
            if (
                facts is not None
                or bits != 8
                or channels not in (1, 3)
                or height * width == 0
                or is_large((width, height))
            ):
                return None
            facts = ImageFacts("JPEG", "RGB" if channels == 3 else "L", width, height, False)
        at = content - 2 + int.from_bytes(data[at + 2 : content])
    return None


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
        with open_image(file) as image:
            plain = (
                image.format == "JPEG"
                and image.mode in ("RGB", "L")
                and not is_large(image.size)
                and not (upright and read_orientation(image) != 1)
            )
            limit = max_bytes(image.size)
    except Exception:  # `decode` raises the reason
        return None
    # A longer file is readable all the same: `decode` stops where the picture ends.
    if not plain or file.seek(0, os.SEEK_END) > limit:
        return None
    file.seek(0)
    data = file.read()
    # Of a file that was cut, TensorFlow may decode the upper part and not notice; `decode` does.
    return data if JPEG_END in data[-_TAIL_BYTES:] else None
