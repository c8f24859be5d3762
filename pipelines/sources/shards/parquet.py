"""Parquet files with a column of images, in the layout of Hugging Face's datasets."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.folder.table import CLASS_COLUMNS
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.records import BrokenShard, Record, image_facts

IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "photo", "image_bytes", "bytes", "content")
_PATH_COLUMNS = ("path", "file_name", "filename")


@dataclass(frozen=True)
class _Columns:
    """Columns of a file with images: `image` is the path of the column with their bytes."""

    image: str
    path: str | None
    label: str | None
    label_names: tuple[str, ...]


def parquet_records(
    file: BinaryIO, pixels: PixelFormat = RGB, *, headers: bool = True
) -> Iterator[Record]:
    """Yields the images of a file.

    Args:
        file: open for reading in binary.
        pixels: that the images are decoded to.
        headers: read all of the file, for the images' lengths and headers; else lengths are -1, and
            no more is read than names and labels.

    Raises:
        BrokenShard: it is truncated, or has no images.
    """
    table = open_parquet(file)
    columns = _columns(table.schema_arrow)
    used = [column for column in (columns.path, columns.label) if column is not None]
    if headers:
        used.append(columns.image)
    number = 0
    try:
        for group in range(table.num_row_groups):
            values = table.read_row_group(group, columns=used)
            count = table.metadata.row_group(group).num_rows
            paths = [None] * count if columns.path is None else _leaf(values, columns.path)
            labels = [None] * count if columns.label is None else _leaf(values, columns.label)
            images = _flat(values, columns.image) if headers else None
            for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
                record = Record(path or str(number), _label(label, columns), group, row, -1)
                if images is not None:
                    image = images[row].as_py() or b""
                    facts = image_facts(io.BytesIO(image), 0, len(image), pixels)
                    record = record._replace(length=len(image), facts=facts)
                yield record
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise BrokenShard(_text(error)) from error


def open_parquet(file: BinaryIO | str, known: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Opens a file, of which the last part is read if it isn't known. Raises BrokenShard."""
    try:
        return pq.ParquetFile(file, metadata=known)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BrokenShard(f"it is truncated, or no Parquet file: {_text(error)}") from error


def read_images(table: pq.ParquetFile, group: int) -> pa.ChunkedArray:
    """Returns the encoded images of a row group, null where there is none. Raises BrokenShard."""
    try:
        column = _columns(table.schema_arrow).image
        return _flat(table.read_row_group(group, columns=[column]), column)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise BrokenShard(_text(error)) from error


def _columns(schema: pa.Schema) -> _Columns:
    features = _features(schema)
    named = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    known = [name for name in IMAGE_COLUMNS if name in schema.names]
    image = next((name for name in [*named, *known] if _has_bytes(schema, name)), None)
    if image is None:
        raise BrokenShard(
            "it has no column of images: expected binary, or a struct of bytes and path, named "
            f"{', '.join(IMAGE_COLUMNS[:4])}, ...; found {', '.join(schema.names)}"
        )
    path = next((name for name in _PATH_COLUMNS if name in schema.names), None)
    if pa.types.is_struct(schema.field(image).type):
        if path is None and schema.field(image).type.get_field_index("path") >= 0:
            path = f"{image}.path"
        image += ".bytes"
    classes = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    label = next(
        (
            name
            for name in (*CLASS_COLUMNS, *classes)
            if name in schema.names and _is_class(schema.field(name).type)
        ),
        None,
    )
    names = features.get(label or "", {}).get("names") or ()
    return _Columns(image, path, label, tuple(map(str, names)))


def _features(schema: pa.Schema) -> dict[str, dict]:
    """Returns what Hugging Face's datasets state of the columns."""
    try:
        stated = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: value for name, value in stated.items() if isinstance(value, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _has_bytes(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_class(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _flat(table: pa.Table, column: str) -> pa.ChunkedArray:
    """Returns a column, or the field of a struct that `a.b` names."""
    name, dot, field = column.partition(".")
    if name in table.column_names and not dot:
        return table.column(name)
    if column in table.column_names:
        return table.column(column)
    chunks = [chunk.flatten() for chunk in table.column(name).chunks]
    kind = table.schema.field(name).type
    index = kind.get_field_index(field)
    return pa.chunked_array([chunk[index] for chunk in chunks], kind.field(index).type)


def _leaf(table: pa.Table, column: str) -> list:
    return _flat(table, column).to_pylist()


def _label(value: object, columns: _Columns) -> str | None:
    if value is None or value == -1:  # -1: Hugging Face's mark of a test set without labels
        return None
    if isinstance(value, int) and 0 <= value < len(columns.label_names):
        return columns.label_names[value]
    return str(value) or None


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
