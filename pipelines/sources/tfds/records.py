"""Random access to the records of a prepared TFDS split, in either file format."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from pipelines.sources.base import Progress, SourceError
from pipelines.sources.cache_file import read_checked, write_checked
from pipelines.sources.decoding import decode
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import LazyImages, Shape
from pipelines.sources.jpeg import plain_jpeg
from pipelines.sources.shards.examples import record_spans
from pipelines.sources.shards.records import BrokenShard


class TFRecords:
    """TFRecord files of a split, accessed by index; TFDS reads them sequentially only.

    Args:
        files: the shards, in order.
        lengths: number of records in each, as TFDS records it.

    Raises:
        SourceError: a shard is truncated or missing.
    """

    def __init__(self, files: list[str], lengths: list[int]) -> None:
        self._files = list(map(Path, files))
        self._first = np.concatenate([[0], np.cumsum(lengths)])  # index of a shard's first record
        self._spans = [
            _spans(file, length) for file, length in zip(self._files, lengths, strict=True)
        ]

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> bytes:
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        start, length = map(int, self._spans[shard][index - self._first[shard]])
        with open(self._files[shard], "rb") as file:  # each time: threads would share a position
            file.seek(start)
            return file.read(length)


def _spans(file: Path, count: int) -> np.ndarray:
    """Returns int64 `[count, 2]`: offset and length of each record's data."""
    try:
        with file.open("rb") as opened:
            spans = np.array(list(record_spans(opened, file.stat().st_size)), np.int64)
    except (OSError, BrokenShard) as error:
        raise SourceError(
            f"{file}: {error}; delete its folder to have the data prepared again"
        ) from error
    if len(spans) != count:
        raise SourceError(
            f"{file} is incomplete: it has {len(spans):,} of {count:,} records; delete its folder "
            "to have the data prepared again"
        )
    return spans.reshape(-1, 2)


def split_images(
    builder: tfds.core.DatasetBuilder,
    split: str,
    *,
    labelled: bool,
    shape: Shape | None,
    on_progress: Progress,
) -> LazyImages:
    """Returns the images of one split of a prepared data set, read when they are accessed.

    EXIF orientation is ignored, as in TFDS's readers, with which results are published.

    Args:
        builder: of a prepared data set.
        split: TFDS's name of the split.
        labelled: whether the images get labels.
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
        _labels(Path(folder, f"{split}.labels"), examples, count, split, on_progress)
        if labelled
        else None
    )
    return LazyImages(count, read, labels, shape, encoded)


def _examples(builder: tfds.core.DatasetBuilder, split: str) -> Callable[[int], dict[str, Any]]:
    """Returns a function index -> example, its image still encoded, that threads may call."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return builder.as_data_source(split, decoders=decoders).__getitem__
    info = builder.info.splits[split]
    records = TFRecords([os.fspath(path) for path in info.filepaths], list(info.shard_lengths))
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
    """Returns the labels of a split, int64.

    They are read from the records once, which takes minutes for ImageNet, then from `file` next to
    them.
    """
    content = read_checked(file)
    if content is not None and len(content) == 8 * count:
        return np.frombuffer(content, np.int64)
    labels = np.empty(count, np.int64)
    for index in range(count):
        labels[index] = examples(index)["label"]
        if index % 1_000 == 999:
            on_progress(f"reading labels of {split}", index + 1, count)
    write_checked(file, labels.tobytes())
    return labels
