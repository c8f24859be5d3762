"""TFRecord and ArrayRecord files: `tf.train.Example`s with an image, or images alone.

An Example is a protocol buffer, of which only the fields that are used are read: the image itself
is passed over (https://protobuf.dev/programming-guides/encoding/, and example.proto and
feature.proto of TensorFlow).
"""

import io
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.records import BrokenShard, Record, image_facts

IMAGE_KEYS = ("image/encoded", "image", "image_raw", "jpeg", "jpg", "png")
LABEL_KEYS = ("image/class/synset", "image/class/text", "image/class/label", "label")
"""Features with the class: that of ImageNet's scripts, whose texts stand for two classes now and
then, and that of TFDS."""
NAME_KEYS = ("image/filename", "file_name", "filename")
_EXAMPLE = b"\n"  # the first byte of a message that has Example's only field
_HEADER = struct.Struct("<Q4x")  # a TFRecord: its length, the length's checksum; then the data
_FOOTER = 4  # bytes of the data's checksum


def record_spans(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Yields offset and length of the data of each record of a TFRecord file.

    Args:
        file: not compressed.
        size: its bytes.

    Raises:
        BrokenShard: the file is truncated, or no TFRecord file.
    """
    position = count = 0
    while position < size:
        file.seek(position)
        header = file.read(_HEADER.size)
        length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
        start = position + _HEADER.size
        position = start + length + _FOOTER
        if position > size:
            raise BrokenShard(f"it is truncated, or no TFRecord file, behind {count:,} records")
        yield start, length
        count += 1


def tfrecord_records(file: BinaryIO, size: int, pixels: PixelFormat = RGB) -> Iterator[Record]:
    """Yields the images of a TFRecord file, decoded to `pixels`. Raises BrokenShard."""
    for number, (start, length) in enumerate(record_spans(file, size)):
        yield _record(file, start, start + length, number, pixels)


def array_record_records(path: str, pixels: PixelFormat = RGB) -> Iterator[Record]:
    """Yields the images of an ArrayRecord file of this disk, see above. Raises BrokenShard."""
    reader = open_array_record(path)
    try:
        count, step = reader.num_records(), 64  # records in memory at once
        for first in range(0, count, step):
            rows = range(first, min(first + step, count))
            for row, data in zip(rows, reader.read(list(rows)), strict=True):
                record = _record(io.BytesIO(data), 0, len(data), row, pixels)
                yield record._replace(row=row)
        reader.close()  # raises what was wrong with the file
    except (RuntimeError, ValueError, IndexError) as error:
        raise BrokenShard(" ".join(str(error).split())) from error


def open_array_record(path: str):  # noqa: ANN201 - array_record states no types
    """Opens an ArrayRecord file. Raises BrokenShard."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader

        return ArrayRecordReader(path)
    except ImportError as error:
        raise BrokenShard("pip install array_record reads it; Windows has none") from error
    except (RuntimeError, ValueError) as error:
        raise BrokenShard(" ".join(str(error).split())) from error


def _record(file: BinaryIO, start: int, end: int, number: int, pixels: PixelFormat) -> Record:
    """Returns the image that stands in a file from `start` to `end`."""
    file.seek(start)
    if file.read(1) != _EXAMPLE:
        facts = image_facts(file, start, end - start, pixels)
        return Record(str(number), None, 0, start, end - start, facts)
    try:
        features = _features(file, start, end)
    except (ValueError, IndexError) as error:
        raise BrokenShard(
            f"record {number:,} is neither a tf.train.Example nor an image"
        ) from error
    found = next((features[key] for key in IMAGE_KEYS if key in features), None)
    if not isinstance(found, range):
        raise BrokenShard(
            f"record {number:,} has no image: expected a feature {', '.join(IMAGE_KEYS)}; found "
            f"{', '.join(sorted(features))}"
        )

    def text(keys: tuple[str, ...]) -> str | None:
        value = next((features[key] for key in keys if key in features), None)
        if isinstance(value, range):
            file.seek(value.start)
            return os.fsdecode(file.read(len(value))) or None
        return None if value is None else str(value)

    facts = image_facts(file, found.start, len(found), pixels)
    name = text(NAME_KEYS) or str(number)
    return Record(name, text(LABEL_KEYS), 0, found.start, len(found), facts)


def _features(file: BinaryIO, start: int, end: int) -> dict[str, range | int]:
    """Returns the first value of each feature: an integer, or where its bytes stand."""
    features: dict[str, range | int] = {}
    for span in _messages(file, start, end, 1):
        for entry in _messages(file, span.start, span.stop, 1):
            fields = dict(_fields(file, entry.start, entry.stop))
            key, feature = fields.get(1), fields.get(2)
            if not isinstance(key, range) or not isinstance(feature, range) or len(key) > 1_000:
                continue
            file.seek(key.start)
            name = file.read(len(key)).decode("utf-8", "replace")
            for kind, values in list(_fields(file, feature.start, feature.stop)):
                if isinstance(values, range) and kind in (1, 3):  # bytes, integers
                    first = next(_fields(file, values.start, values.stop), (0, None))[1]
                    if kind == 3 and isinstance(first, range):  # packed
                        file.seek(first.start)
                        first = _varint(file) if len(first) else None
                    if first is not None:
                        features[name] = first
    return features


def _messages(file: BinaryIO, start: int, end: int, field: int) -> list[range]:
    found = _fields(file, start, end)
    return [value for number, value in found if number == field and isinstance(value, range)]


def _fields(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, range | int]]:
    """Yields (number, integer or where its bytes stand) of each field of a message."""
    while start < end:
        file.seek(start)
        key = _varint(file)
        number, wire_type = key >> 3, key & 7
        value: range | int
        if wire_type == 0:
            value = _varint(file)
            start = file.tell()
        elif wire_type == 2:
            length = _varint(file)
            value = range(file.tell(), file.tell() + length)
            start = value.stop
        elif wire_type in (1, 5):
            value = 0  # a number with a point: of no use here
            start = file.tell() + (8 if wire_type == 1 else 4)
        else:
            raise ValueError("no protocol buffer")
        if start > end:
            raise ValueError("a field that ends behind its message")
        yield number, value


def _varint(file: BinaryIO) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value - 2**64 if value >= 2**63 else value
        shift += 7
        if shift > 63:
            raise ValueError("no protocol buffer")
