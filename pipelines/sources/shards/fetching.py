"""Fetches images of remote shards before they are read, those of a block by one request."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pipelines.sources.blocks import BLOCK_BYTES, MOST_OPEN, Blocks
from pipelines.sources.shards.finding import Shard
from pipelines.sources.shards.reading import ShardReader

_REQUESTS = 16
"""Blocks that are requested at once."""
_MAX_GAP = 2**18
"""Bytes between two images that are cheaper to read than to ask for the second one."""
_MAX_BYTES = 2**30
"""Memory for images that were fetched and not read yet. Twice that of all open blocks, so that none
is dropped unless nobody reads them: where a stream of batches has ended."""


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
    numbers = np.cumsum(begins)
    if kind != "parquet":
        return Blocks(numbers)
    groups = np.maximum(np.bincount(shard_of[begins], minlength=len(shards)), 1)
    largest = max(shard.size / count for shard, count in zip(shards, groups, strict=True))
    fitting = max(1, int(MOST_OPEN * BLOCK_BYTES / largest))
    return Blocks(numbers, min(MOST_OPEN, 2 ** (fitting.bit_length() - 1)))


class BlockFetcher:
    """Images that were fetched and not read yet; several threads may use it.

    Args:
        reader: of the shards.
        shards: remote ones.
        shard_of: int64 `[n]`, the shard of each image.
        spans: int64 `[n, 3]`, see `ShardIndex`.
        blocks: of the images.
    """

    def __init__(
        self,
        reader: ShardReader,
        shards: Sequence[Shard],
        shard_of: np.ndarray,
        spans: np.ndarray,
        blocks: Blocks,
    ) -> None:
        self._reader, self._shards, self._shard_of = reader, shards, shard_of
        self._spans, self._blocks = spans, blocks
        # Of Parquet the lengths aren't known; they are much alike.
        counts = np.bincount(shard_of, minlength=len(shards))
        mean = np.array([shard.size for shard in shards]) // np.maximum(counts, 1)
        self._bytes = np.where(spans[:, 2] < 0, mean[shard_of], spans[:, 2])
        self._pool = ThreadPoolExecutor(_REQUESTS, thread_name_prefix="fetch")
        self._lock = threading.Lock()
        self._coming: dict[int, Future[dict[int, bytes | None]]] = {}
        self._coming_bytes = 0

    def fetch(self, numbers: np.ndarray) -> None:
        """Requests images; those that wait longest are dropped when too many do."""
        numbers = np.sort(numbers)
        gaps = np.diff(self._spans[numbers, 1]) - self._bytes[numbers[:-1]]
        apart = (np.diff(self._blocks.numbers[numbers]) != 0) | (gaps > _MAX_GAP)
        for group in np.split(numbers, np.flatnonzero(apart) + 1):
            future = self._pool.submit(self._load, group)
            with self._lock:
                for number in group.tolist():
                    self._remove(number)
                    self._coming[number] = future
                    self._coming_bytes += self._bytes[number]
                while self._coming_bytes > _MAX_BYTES:
                    self._remove(next(iter(self._coming)))

    def take(self, number: int) -> bytes | None:
        """Returns an image's file, once; None if it wasn't fetched."""
        with self._lock:
            future = self._remove(number)
        if future is None:
            return None
        try:
            return future.result().pop(number)
        except Exception:  # of a server, of a library: reading the image alone reports it
            return None

    def _remove(self, number: int) -> Future[dict[int, bytes | None]] | None:
        future = self._coming.pop(number, None)
        if future is not None:
            self._coming_bytes -= self._bytes[number]
        return future

    def _load(self, numbers: np.ndarray) -> dict[int, bytes | None]:
        shard = self._shards[self._shard_of[numbers[0]]]
        files = self._reader.read_block(shard, self._spans[numbers])
        return dict(zip(numbers.tolist(), files, strict=True))
