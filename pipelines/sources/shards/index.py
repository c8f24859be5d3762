"""Index of shards: where each image stands, found once and then cached.

The cache is one `.npz` outside the shards' folder, see `cache_file.py`. An entry is valid while
the shard's size and stamp (time of the last change, or the server's ETag) are the same. A file that
is damaged counts as missing.
"""

import functools
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.sources.base import Progress, SourceError
from pipelines.sources.cache_file import decoder_versions, read_checked, write_checked
from pipelines.sources.image_file import ImageFacts
from pipelines.sources.images import REQUESTS
from pipelines.sources.loading import map_in_order
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.remote import Location, RemotePath
from pipelines.sources.shards.examples import array_record_records, tfrecord_records
from pipelines.sources.shards.finding import Shard
from pipelines.sources.shards.parquet import parquet_records
from pipelines.sources.shards.records import BrokenShard, Record
from pipelines.sources.shards.tar import tar_records

_VERSION = 1
"""Version of the index: increase it when that lists other images, or other facts of them."""
_PARQUET_READAHEAD = 2**16


@dataclass(frozen=True)
class ShardIndex:
    """The images of one shard, in their order.

    Attributes:
        size: bytes of the shard.
        stamp: see `Shard`.
        names: of each image, see `Record`.
        labels: the class of each, or None.
        spans: int64 `[n, 3]`: row, offset and length of each, see `Record`.
        facts: what the header of each states, or None; empty where headers weren't read.
    """

    size: int
    stamp: str
    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    spans: np.ndarray
    facts: tuple[ImageFacts | None, ...]


_known: dict[str, dict[str, ShardIndex]] = {}
"""By root, for this process: a source is described before it is loaded."""
_unsaved: set[str] = set()
"""Roots of which `_known` has more than the cache's file."""


class IndexCache:
    """Indices of the shards of one root.

    Args:
        root: the pattern or folder.
        folder: where the cache's file lies or will lie; None: in memory only.
        pixels: that the images are decoded to, for which each has a cache of its own.
    """

    def __init__(self, root: str, folder: str | None, pixels: PixelFormat = RGB) -> None:
        if not pixels.is_rgb:
            root += f"\0{pixels}"
        name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
        self._root, self._pixels = root, pixels
        self._file = None if folder is None else Path(folder) / f".shards-{name}.npz"
        self._known = _known.setdefault(root, {})
        if not self._known and self._file is not None:
            self._known.update(_read(self._file))

    def index(self, shards: Iterable[Shard], on_progress: Progress) -> dict[str, ShardIndex]:
        """Returns the index of each shard, by its name.

        Raises:
            SourceError: a shard is truncated or of another format, or can't be read.
        """
        shards = list(shards)
        new = [shard for shard in shards if not self._is_valid(shard)]
        images = size = 0
        total = sum(shard.size for shard in new)
        index_one = functools.partial(index_shard, pixels=self._pixels)
        workers = REQUESTS if any(isinstance(shard.location, RemotePath) for shard in new) else None
        for shard, index in zip(new, map_in_order(index_one, new, workers), strict=True):
            self._known[shard.name] = index
            _unsaved.add(self._root)
            images, size = images + len(index.names), size + shard.size
            # How many there are in all is known at the end; until then by the size of the rest.
            expected = images if size == total else max(images + 1, images * total // max(size, 1))
            on_progress("indexing shards", images, expected)
        return {shard.name: self._known[shard.name] for shard in shards}

    def former(self, name: str, size: int) -> ShardIndex | None:
        """Returns the index of a shard of that size that is gone by now, or None."""
        index = self._known.get(name)
        return index if index is not None and index.size == size else None

    def save(self) -> None:
        """Writes the cache if it has changed; a folder that can't be written is no error."""
        if self._file is None or (self._file.exists() and self._root not in _unsaved):
            return
        if write_checked(self._file, _to_bytes(self._known)):
            _unsaved.discard(self._root)

    def _is_valid(self, shard: Shard) -> bool:
        index = self._known.get(shard.name)
        return index is not None and (index.size, index.stamp) == (shard.size, shard.stamp)


def index_shard(shard: Shard, pixels: PixelFormat = RGB) -> ShardIndex:
    """Reads where the images of a shard stand, and their labels. Raises SourceError."""
    try:
        records = list(_records(shard, pixels))
    except BrokenShard as error:
        raise SourceError(f"{shard.location}: {error}. Copy or write this shard again") from error
    except FileNotFoundError as error:
        raise SourceError(f"{shard.location} was there and is gone") from error
    except OSError as error:
        raise SourceError(f"{shard.location} can't be read: {error.strerror or error}") from error
    return ShardIndex(
        shard.size,
        shard.stamp,
        tuple(record.name for record in records),
        tuple(record.label for record in records),
        np.array([record[2:5] for record in records], np.int64).reshape(-1, 3),
        () if _lacks_headers(shard) else tuple(record.facts for record in records),
    )


def open_location(location: Location, size: int, readahead: int | None) -> BinaryIO:
    """Opens a shard for reading anywhere in it. Raises OSError, SourceError."""
    if isinstance(location, RemotePath):
        return location.open(size, readahead)
    return location.open("rb")


def local_copy(location: Location) -> str:
    """Returns the path of a file, downloaded if it is remote, for a library that takes no other."""
    return location.local_copy() if isinstance(location, RemotePath) else str(location)


def _lacks_headers(shard: Shard) -> bool:
    """Returns whether the headers of a shard's images can't be read but with all of the shard."""
    remote = isinstance(shard.location, RemotePath) and not shard.location.is_cached
    return remote and shard.kind == "parquet"


def _records(shard: Shard, pixels: PixelFormat) -> Iterable[Record]:
    if shard.kind == "array_record":
        yield from array_record_records(local_copy(shard.location), pixels)
        return
    # Of a Parquet file names and labels are read, which are short.
    readahead = _PARQUET_READAHEAD if shard.kind == "parquet" else None
    with open_location(shard.location, shard.size, readahead) as file:
        if shard.kind == "parquet":
            yield from parquet_records(file, pixels, headers=not _lacks_headers(shard))
        else:
            read = tar_records if shard.kind == "tar" else tfrecord_records
            yield from read(file, shard.size, pixels)


def _to_bytes(indices: Mapping[str, ShardIndex]) -> bytes:
    """Returns indices as an `.npz` that holds no Python objects."""
    texts = {
        name: {
            "size": index.size,
            "stamp": index.stamp,
            "names": index.names,
            "labels": index.labels if any(index.labels) else None,
            "facts": [facts and astuple(facts) for facts in index.facts],
        }
        for name, index in indices.items()
    }
    file = io.BytesIO()
    spans = [index.spans for index in indices.values()]
    np.savez_compressed(
        file,
        version=np.array(_version()),
        texts=np.frombuffer(json.dumps(texts).encode(), np.uint8),
        spans=np.concatenate(spans) if spans else np.empty((0, 3), np.int64),
    )
    return file.getvalue()


def _version() -> str:
    """Returns what an index depends on besides the shard."""
    return f"{_VERSION}, {decoder_versions()}"


def _read(file: Path) -> dict[str, ShardIndex]:
    content = read_checked(file)
    if content is None:
        return {}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as saved:
            if saved["version"] != _version():
                return {}
            texts, spans = json.loads(saved["texts"].tobytes()), saved["spans"]
    except (ValueError, KeyError, OSError):  # which zipfile raises too
        return {}
    indices, start = {}, 0
    for name, entry in texts.items():
        count = len(entry["names"])
        labels = entry["labels"] or [None] * count
        indices[name] = ShardIndex(
            entry["size"],
            entry["stamp"],
            tuple(entry["names"]),
            tuple(labels),
            spans[start : start + count],
            tuple(facts and ImageFacts(*facts) for facts in entry["facts"]),
        )
        start += count
    return indices
