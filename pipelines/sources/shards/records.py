"""The images of a shard, as an index lists them."""

import io
from typing import BinaryIO, NamedTuple

from pipelines.sources.decoding import read_header
from pipelines.sources.image_file import JPEG_START, ImageFacts, UnreadableImage
from pipelines.sources.jpeg import JPEG_HEADER_BYTES
from pipelines.sources.pixels import RGB, PixelFormat


class Record(NamedTuple):
    """An image in a shard.

    Attributes:
        name: its path in the shard, or its number where it has none.
        label: its class, or None.
        row: which record of the shard it is in, or which row group; 0 where that doesn't matter.
        offset: where its bytes begin: in the shard or record; in a row group, its row.
        length: its bytes.
        facts: what its header states; None where it can't be read.
    """

    name: str
    label: str | None
    row: int
    offset: int
    length: int
    facts: ImageFacts | None = None


def image_facts(
    file: BinaryIO, offset: int, length: int, pixels: PixelFormat = RGB
) -> ImageFacts | None:
    """Returns what the header of the image at an offset states; None where it can't be read."""
    file.seek(offset)
    data = file.read(min(length, JPEG_HEADER_BYTES))
    # Other formats have metadata behind the pixels.
    complete = len(data) == length
    if not complete and data[:2] != JPEG_START:
        data, complete = data + file.read(length - len(data)), True
    try:
        return read_header(io.BytesIO(data), pixels=pixels)
    except UnreadableImage:
        if complete:
            return None
    try:
        data += file.read(length - len(data))
        return read_header(io.BytesIO(data), pixels=pixels)
    except UnreadableImage:
        return None


class BrokenShard(Exception):
    """A shard that can't be read as its name says; the text is a short reason."""
