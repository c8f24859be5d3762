"""Writes shards that `source.py` reads; the same photos give the same bytes."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.sources.folder.discovery import printable

SUFFIXES = {
    "tar": ".tar",
    "tfrecord": ".tfrecord",
    "arrayrecord": ".array_record",
    "parquet": ".parquet",
}
"""Formats, each with how the names of its files end."""
_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 2**20, 100
"""A row group is the least that a reader of one image reads; Hugging Face's have 100 rows."""


class PackedPhoto(NamedTuple):
    """A photo to be written: its path below the folder, its class or None, its file's bytes."""

    path: str
    label: str | None
    content: bytes


def write_shard(
    format: str, file: Path, photos: Iterable[PackedPhoto], class_names: Sequence[str]
) -> None:
    """Writes photos into a new file.

    Args:
        format: one of `SUFFIXES`.
        file: what is there is replaced.
        photos: in their order.
        class_names: all of the data set's, also those that aren't in this shard.

    Raises:
        OSError: it can't be written.
    """
    write: dict[str, Callable[[Path, Iterable[PackedPhoto], Sequence[str]], None]] = {
        "tar": _write_tar,
        "tfrecord": _write_tfrecord,
        "arrayrecord": _write_array_record,
        "parquet": _write_parquet,
    }
    write[format](file, photos, class_names)


def _write_tar(file: Path, photos: Iterable[PackedPhoto], class_names: Sequence[str]) -> None:
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for photo in photos:
            member = tarfile.TarInfo(photo.path)  # without times and owners, which would differ
            member.size = len(photo.content)
            archive.addfile(member, io.BytesIO(photo.content))


def _write_tfrecord(file: Path, photos: Iterable[PackedPhoto], class_names: Sequence[str]) -> None:
    import tensorflow as tf

    try:
        with tf.io.TFRecordWriter(os.fspath(file)) as writer:
            for example in _examples(photos, class_names):
                writer.write(example)
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def _write_array_record(
    file: Path, photos: Iterable[PackedPhoto], class_names: Sequence[str]
) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    # As TFDS writes them: each record can be read alone.
    try:
        writer = ArrayRecordWriter(os.fspath(file), "group_size:1")
        for example in _examples(photos, class_names):
            writer.write(example)
        writer.close()
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _examples(photos: Iterable[PackedPhoto], class_names: Sequence[str]) -> Iterator[bytes]:
    """Yields `tf.train.Example`s with the features of ImageNet's scripts."""
    import tensorflow as tf

    labels = {name: label for label, name in enumerate(class_names)}

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    for photo in photos:
        values: dict[str, bytes | int] = {
            "image/encoded": photo.content,
            "image/filename": os.fsencode(photo.path),
        }
        if photo.label is not None:
            values["image/class/label"] = labels[photo.label]
            values["image/class/text"] = os.fsencode(photo.label)
        features = tf.train.Features(feature={key: feature(value) for key, value in values.items()})
        yield tf.train.Example(features=features).SerializeToString(deterministic=True)


def _write_parquet(file: Path, photos: Iterable[PackedPhoto], class_names: Sequence[str]) -> None:
    """Writes the columns of a Hugging Face data set: `image`, and `label` where there are any."""
    names = [printable(name) for name in class_names]
    features: dict[str, dict] = {"image": {"_type": "Image"}}
    fields = [pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    if names:
        features["label"] = {"names": names, "_type": "ClassLabel"}
        fields.append(pa.field("label", pa.int64()))
    stated = json.dumps({"info": {"features": features}})
    schema = pa.schema(fields, metadata={"huggingface": stated})
    labels = {name: label for label, name in enumerate(class_names)}
    with pq.ParquetWriter(
        file, schema, compression="none", use_dictionary=False, write_statistics=False
    ) as writer:
        for rows in _row_groups(photos):
            columns = {
                "image": [
                    {"bytes": photo.content, "path": printable(photo.path)} for photo in rows
                ],
                # -1 is Hugging Face's mark of an image without a label.
                "label": [-1 if photo.label is None else labels[photo.label] for photo in rows],
            }
            writer.write_table(
                pa.Table.from_pydict({name: columns[name] for name in schema.names}, schema)
            )


def _row_groups(photos: Iterable[PackedPhoto]) -> Iterator[list[PackedPhoto]]:
    rows: list[PackedPhoto] = []
    for photo in photos:
        rows.append(photo)
        if (
            len(rows) == _ROW_GROUP_ROWS
            or sum(len(row.content) for row in rows) >= _ROW_GROUP_BYTES
        ):
            yield rows
            rows = []
    if rows:
        yield rows
