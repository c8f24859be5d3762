"""The records of a prepared TFDS split, each reached by its index, in either file format and
without TensorFlow."""

import contextlib
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pipelines.sources.base import Progress, SourceError
from pipelines.sources.decoding import UnreadableImage, decode, plain_jpeg
from pipelines.sources.images import LazyImages, Shape

_HEADER = struct.Struct(
    "<Q4x"
)  # a TFRecord: length, checksum of the length; then the data and their checksum of 4 bytes
_FOOTER = 4


class TFRecords:
    """Random access to the TFRecord files of a split, which TFDS reads from beginning to end only.

    Args:
        files: the shards, in order.
        lengths: records in each, as TFDS noted them.

    Raises:
        SourceError: a shard is cut short or missing.
    """

    def __init__(self, files: list[Path], lengths: list[int]) -> None:
        self._files = files
        self._first = np.concatenate(
            [[0], np.cumsum(lengths)]
        )  # number of each shard's first record
        self._places = [_places(file, length) for file, length in zip(files, lengths, strict=True)]

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> bytes:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        start, length = self._places[shard][index - self._first[shard]]
        with open(
            self._files[shard], "rb"
        ) as file:  # opened each time: threads would share a position
            file.seek(int(start))
            return file.read(int(length))


def _places(file: Path, count: int) -> np.ndarray:
    """int64 `[count, 2]`: where each record's data begin, and how long they are."""
    places = np.empty((count, 2), np.int64)
    try:
        size = file.stat().st_size
        with open(file, "rb") as opened:
            position = 0
            for row in range(count):
                opened.seek(position)
                (length,) = _HEADER.unpack(opened.read(_HEADER.size))
                places[row] = position + _HEADER.size, length
                position += _HEADER.size + length + _FOOTER
    except (OSError, struct.error) as error:
        raise SourceError(
            f"{file} is not whole ({error}); delete its folder to have the data prepared again"
        ) from error
    if position > size:
        raise SourceError(f"{file} is cut short; delete its folder to have the data prepared again")
    return places


def split_images(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    labelled: bool,
    shape: Shape | None,
    on_progress: Progress,
) -> LazyImages:
    """Returns the images of one split of a prepared data set, read when they are asked for.

    EXIF orientation is not obeyed: TFDS's readers, with which results are published, don't.

    Args:
        builder: of a prepared data set.
        split: TFDS's name of it.
        labelled: whether to give labels.
        shape: of every image, or None.
        on_progress: called while labels are read for the first time.
    """
    examples = _examples(builder, split)
    count = builder.info.splits[split].num_examples
    folder = builder.data_dir

    def read(index: int) -> np.ndarray:
        try:
            return decode(io.BytesIO(examples(index)["image"]), upright=False)[0]
        except UnreadableImage as error:
            raise SourceError(
                f"image {index} of {split} in {folder}: {error}; delete the folder to have the "
                "data prepared again"
            ) from error

    def encoded(index: int) -> bytes | None:
        return plain_jpeg(io.BytesIO(examples(index)["image"]), upright=False)

    labels = (
        _labels(Path(folder) / f"labels-{split}.npy", examples, count, split, on_progress)
        if labelled
        else None
    )
    return LazyImages(count, read, labels, shape, encoded)


def _examples(builder: tfds.core.DatasetBuilder, split: str) -> Callable[[int], dict[str, Any]]:
    """index -> example, its image still encoded. Threads may call it."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return builder.as_data_source(split, decoders=decoders).__getitem__
    info = builder.info.splits[split]
    records = TFRecords([Path(path) for path in info.filepaths], list(info.shard_lengths))
    return lambda index: builder.info.features.deserialize_example_np(
        records[index], decoders=decoders
    )


def _labels(
    file: Path,
    examples: Callable[[int], dict[str, Any]],
    count: int,
    split: str,
    on_progress: Progress,
) -> np.ndarray:
    """Labels of a split, int64. Read from the records once, which takes minutes for ImageNet, then
    from `file` beside them."""
    try:
        labels = np.load(file, allow_pickle=False)
        if labels.shape == (count,) and labels.dtype == np.int64:
            return labels
    except (OSError, ValueError, EOFError):  # not there yet, or not whole
        pass
    labels = np.empty(count, np.int64)
    for index in range(count):
        labels[index] = examples(index)["label"]
        if index % 1_000 == 999:
            on_progress(f"reading labels of {split}", index + 1, count)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as opened:
            np.save(opened, labels)
        os.replace(part, file)
    except OSError:  # a full disk or a folder that can't be written: read again next time
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return labels
