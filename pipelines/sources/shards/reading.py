"""Reads single images out of shards."""

import functools
import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.remote import RemotePath
from pipelines.sources.shards.examples import open_array_record
from pipelines.sources.shards.finding import Shard
from pipelines.sources.shards.index import local_copy
from pipelines.sources.shards.parquet import open_parquet, read_images
from pipelines.sources.shards.records import BrokenShard

_OPEN_SHARDS = 128
_ROW_GROUP_BYTES = 2**28
"""Memory for row groups of Parquet files: one is the least that can be read of a file."""


class ShardReader:
    """Reads images by their places; several threads may use it.

    Args:
        gone: shards that aren't there any more, by their names, with the reason.
    """

    def __init__(self, gone: Mapping[str, str]) -> None:
        self._gone = dict(gone)
        self._lock = threading.Lock()
        self._shard_locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._groups: OrderedDict[tuple[str, int], pa.ChunkedArray] = OrderedDict()
        self._group_bytes = 0
        self._opened = functools.lru_cache(_OPEN_SHARDS)(_open)

    def read(self, shard: Shard, row: int, offset: int, length: int) -> bytes:
        """Returns an image's file.

        Args:
            shard: which it is in.
            row: see `Record`, as are the others.
            offset: where its bytes begin.
            length: its bytes.

        Raises:
            UnreadableImage: the shard is gone, truncated or has been replaced.
            SourceError: its server can't be reached.
        """
        try:
            # A shard that is gone stays so, or the run's order would depend on when it came back.
            if (reason := self._gone.get(shard.name)) is not None:
                raise UnreadableImage(reason)
            if shard.kind == "parquet":
                image = self._row_group(shard, row)[offset].as_py()
                if image is None:
                    raise UnreadableImage("its row has no bytes of an image")
                return image
            if shard.kind == "array_record":
                data = self._opened(shard).read([row])[0][offset : offset + length]
            elif isinstance(shard.location, RemotePath):
                data = shard.location.read(offset, offset + length) if length else b""
            else:
                data = _read_local(shard, shard.location, offset, length)
        except FileNotFoundError as error:
            raise self._lose(shard, "its shard is gone") from error
        except (OSError, BrokenShard, RuntimeError, IndexError, pa.ArrowException) as error:
            text = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise UnreadableImage(f"its shard can't be read: {text}"[:200]) from error
        if len(data) < length:
            raise UnreadableImage("its shard is truncated")
        return data

    def read_block(self, shard: Shard, spans: np.ndarray) -> list[bytes | None]:
        """Reads images that lie side by side in a remote shard, by one request.

        Args:
            shard: which they are in.
            spans: int64 `[n, 3]`, ascending, in one row group; row, offset and length of each.

        Returns:
            The file of each image; None where it is null or the shard is truncated.
        """
        location = shard.location
        if shard.name in self._gone or not isinstance(location, RemotePath):
            return [None] * len(spans)
        if shard.kind == "parquet":
            with self._lock_of(shard):  # several threads would read the same footer
                known = self._opened(shard).metadata
            file = open_parquet(location.open(shard.size, readahead=0), known)
            images = read_images(file, int(spans[0, 0]))
            return [images[row].as_py() for row in spans[:, 1].tolist()]
        begin, end = int(spans[0, 1]), int(spans[-1, 1] + spans[-1, 2])
        data = location.read(begin, end)
        return [
            data[offset - begin : offset - begin + length]
            if offset - begin + length <= len(data)
            else None
            for _, offset, length in spans.tolist()
        ]

    def _lose(self, shard: Shard, reason: str) -> UnreadableImage:
        self._gone[shard.name] = reason
        return UnreadableImage(reason)

    def _lock_of(self, shard: Shard) -> threading.Lock:
        with self._lock:
            return self._shard_locks[shard.name]

    def _row_group(self, shard: Shard, group: int) -> pa.ChunkedArray:
        key = shard.name, group
        with self._lock_of(shard):
            with self._lock:
                if key in self._groups:
                    self._groups.move_to_end(key)
                    return self._groups[key]
            images = read_images(self._opened(shard), group)
            with self._lock:
                self._groups[key] = images
                self._group_bytes += images.nbytes
                while self._group_bytes > _ROW_GROUP_BYTES and len(self._groups) > 1:
                    self._group_bytes -= self._groups.popitem(last=False)[1].nbytes
            return images


def _read_local(shard: Shard, path: Path, offset: int, length: int) -> bytes:
    with open(path, "rb") as file:  # each time: threads would share a position
        size = os.fstat(file.fileno()).st_size
        if size != shard.size:
            raise UnreadableImage(
                f"its shard changed while it was used: {size:,} bytes, {shard.size:,} before"
            )
        file.seek(offset)
        return file.read(length)


def _open(shard: Shard) -> Any:
    """Opens a shard of a format that a library reads."""
    if shard.kind == "array_record":
        return open_array_record(local_copy(shard.location))
    if isinstance(shard.location, RemotePath):
        return open_parquet(shard.location.open(shard.size, readahead=0))
    return open_parquet(os.fspath(shard.location))
