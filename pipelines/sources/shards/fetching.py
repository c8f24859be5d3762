"""Reads images of shards; those of remote ones in blocks, before they are asked for."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.sources.blocks import BLOCK_BYTES, MAX_OPEN, Blocks
from pipelines.sources.remote import RemotePath
from pipelines.sources.shards.finding import Shard
from pipelines.sources.shards.index import ShardIndex
from pipelines.sources.shards.reading import ShardReader

_REQUESTS = 16
"""Blocks that are requested at once."""
_MAX_GAP = 2**18
"""Bytes between two images that are cheaper to read than to ask for the second one."""
_MAX_BYTES = 2**30
"""Memory for images that were fetched and not read yet: four times that of all open blocks, or four
times what one step fetches where that is more. `batches.py` fetches at most a quarter of it or one
step ahead, and reads two steps at once: none is dropped unless nobody reads them, as where a stream
of batches has ended."""


def blocks_of(shards: Sequence[Shard], shard_of: np.ndarray, spans: np.ndarray) -> Blocks | None:
    """Returns the blocks in which images of shards can be read.

    They are the row groups of Parquet files; others are cut every `BLOCK_BYTES`.

    Args:
        shards: of one format.
        shard_of: int64 `[n]`, the shard of each image.
        spans: int64 `[n, 3]`, see `ShardIndex`.

    Returns:
        The blocks; None for ArrayRecord files, of which a library reads single records.
    """
    kind = shards[0].kind
    if kind == "array_record":
        return None
    within = spans[:, 0] if kind == "parquet" else spans[:, 1] // BLOCK_BYTES
    begins = (np.diff(shard_of, prepend=-1) != 0) | (np.diff(within, prepend=-1) != 0)
    ids = np.cumsum(begins)
    image_bytes = int(_image_bytes(shards, shard_of, spans).mean()) if len(spans) else 0
    if kind != "parquet":
        return Blocks(ids, image_bytes=image_bytes)
    groups = np.maximum(np.bincount(shard_of[begins], minlength=len(shards)), 1)
    largest = max(shard.size / count for shard, count in zip(shards, groups, strict=True))
    fitting = max(1, int(MAX_OPEN * BLOCK_BYTES / largest))
    return Blocks(ids, min(MAX_OPEN, 2 ** (fitting.bit_length() - 1)), image_bytes)


def _image_bytes(shards: Sequence[Shard], shard_of: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Returns the length of each image's file, int64 `[n]`."""
    # Of remote Parquet files the lengths aren't known; they are much alike.
    counts = np.bincount(shard_of, minlength=len(shards))
    mean = np.array([shard.size for shard in shards]) // np.maximum(counts, 1)
    return np.where(spans[:, 2] < 0, mean[shard_of], spans[:, 2])


def _unique_names(shard: Shard, index: ShardIndex) -> list[str]:
    """Returns the names of a shard's images, those that it has twice with their numbers."""
    names = [f"{shard.name}/{name}" for name in index.names]
    if len(set(names)) == len(names):
        return names
    return [f"{name}#{number}" for number, name in enumerate(names)]


class ShardImages:
    """Images of shards, read by their indices; several threads may use it.

    Those of remote shards may be fetched before they are read, a block by one request.

    Args:
        shards: of one format.
        indices: of each shard.
        gone: shards that aren't there any more, by their names, with the reason.

    Attributes:
        names: of each image, a different one.
        spans: int64 `[n, 3]`, see `ShardIndex`.
        blocks: in which images can be read; None for ArrayRecord files.
        is_remote: whether each image is requested from a server, once it isn't on this disk.
        reads_blocks: whether a block is one request.
    """

    def __init__(
        self, shards: Sequence[Shard], indices: Sequence[ShardIndex], gone: Mapping[str, str]
    ) -> None:
        counts = np.array([len(index.names) for index in indices])
        self.names = [
            name
            for shard, index in zip(shards, indices, strict=True)
            for name in _unique_names(shard, index)
        ]
        self.spans = np.concatenate([index.spans for index in indices])
        self._shards, self._shard_of = shards, np.repeat(np.arange(len(shards)), counts)
        self.blocks = blocks_of(shards, self._shard_of, self.spans)
        location = shards[0].location
        self.is_remote = isinstance(location, RemotePath)
        self.reads_blocks = (
            isinstance(location, RemotePath) and not location.is_cached and self.blocks is not None
        )
        self._bytes = _image_bytes(shards, self._shard_of, self.spans)
        self._reader = ShardReader(gone)
        self._pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="fetch")
        self._lock, self._last = threading.Lock(), threading.local()
        # Twice where an epoch's last photos wait when the next one's first are fetched.
        self._pending: dict[int, list[Future[dict[int, bytes | None]]]] = {}
        self._pending_bytes, self._max_bytes = 0, _MAX_BYTES

    def read(self, index: int) -> bytes:
        """Returns an image's file. Raises UnreadableImage, SourceError."""
        # Who asked for a plain JPEG, and has got another file, reads that again.
        last, self._last.read = getattr(self._last, "read", None), None
        if last is not None and last[0] == index:
            return last[1]
        file = self._fetched(index)
        if file is None:
            shard = self._shards[self._shard_of[index]]
            file = self._reader.read(shard, *self.spans[index].tolist())
        if self.is_remote:
            self._last.read = index, file
        return file

    def fetch(self, indices: np.ndarray) -> None:
        """Starts to fetch the blocks that hold these images, and returns at once.

        Each image is kept until its first read; beyond the limit the oldest are dropped.
        """
        if self.blocks is None or not self.reads_blocks or not len(indices):
            return
        indices = np.sort(indices)
        self._max_bytes = max(self._max_bytes, 4 * int(self._bytes[indices].sum()))
        gaps = np.diff(self.spans[indices, 1]) - self._bytes[indices[:-1]]
        apart = (np.diff(self.blocks.ids[indices]) != 0) | (gaps > _MAX_GAP)
        for group in np.split(indices, np.flatnonzero(apart) + 1):
            future = self._pool.submit(self._load, group)
            with self._lock:
                for index in group.tolist():
                    self._pending.setdefault(index, []).append(future)
                    self._pending_bytes += self._bytes[index]
                while self._pending_bytes > self._max_bytes:
                    self._remove(next(iter(self._pending)))

    def _fetched(self, index: int) -> bytes | None:
        with self._lock:
            future = self._remove(index)
        if future is None:
            return None
        try:
            return future.result().pop(index)
        except Exception:  # of a server, of a library: reading the image alone raises it again
            return None

    def _remove(self, index: int) -> Future[dict[int, bytes | None]] | None:
        futures = self._pending.get(index)
        if futures is None:
            return None
        self._pending_bytes -= self._bytes[index]
        if len(futures) == 1:
            del self._pending[index]
        return futures.pop(0)

    def _load(self, indices: np.ndarray) -> dict[int, bytes | None]:
        shard = self._shards[self._shard_of[indices[0]]]
        files = self._reader.read_block(shard, self.spans[indices])
        return dict(zip(indices.tolist(), files, strict=True))
