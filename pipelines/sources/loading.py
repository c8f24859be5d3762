"""One pass over images with several threads: to cache them in memory, or to check them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import (
    REQUESTS,
    ArrayImages,
    CachedImages,
    Images,
    Shape,
    subset,
)

T = TypeVar("T")
R = TypeVar("R")

_BLOCK = 8  # images that a thread reads at once
_MAX_BATCH_PIXELS = 512 * 512  # of an image that is still processed in batches


def is_batchable(shape: Shape) -> bool:
    """Returns whether a batch of such images, as float32, fits into a machine's memory."""
    return shape[0] * shape[1] <= _MAX_BATCH_PIXELS


@dataclass(frozen=True)
class Reading:
    """Result of one pass over images.

    Attributes:
        images: the readable ones; an `ArrayImages` or `CachedImages` if they are kept in memory.
            Their `shape` is known if they all have one and are batchable.
        readable: int64, ascending: their indices before the pass.
        unreadable: (index before the pass, reason) of each of the others.
        common_shape: of all readable ones, batchable or not; None where they differ.
    """

    images: Images
    readable: np.ndarray
    unreadable: tuple[tuple[int, str], ...]
    common_shape: Shape | None = None

    @property
    def in_memory(self) -> bool:
        """True if the images are cached, or will be."""
        return isinstance(self.images, ArrayImages | CachedImages)


def read_through(
    images: Images, *, in_memory: bool, progress: Callable[[int], None] | None = None
) -> Reading:
    """Reads every image once.

    Args:
        images: reading one may raise `UnreadableImage`.
        in_memory: keep the pixels; given up when two images differ in shape.
        progress: called with the number of images done so far.

    Returns:
        The readable images, and why the others aren't.
    """
    count = len(images)
    array: np.ndarray | None = None
    shapes: set[Shape] = set() if images.shape is None else {images.shape}
    unreadable: list[tuple[int, str]] = []
    done = 0
    for block in _read_blocks(images, keep_pixels=in_memory):
        for result in block:
            if result.shape is None:
                unreadable.append((done, result.error))
            else:
                shapes.add(result.shape)
                if in_memory and len(shapes) == 1:
                    if array is None:  # pages of np.empty cost nothing until they are written
                        array = np.empty((count, *result.shape), images.dtype)
                    array[done] = result.pixels
                else:
                    in_memory, array = False, None
            done += 1
        if progress is not None:
            progress(done)

    readable = np.setdiff1d(
        np.arange(count, dtype=np.int64), np.array([i for i, _ in unreadable], np.int64)
    )
    if array is not None:
        for row, index in enumerate(readable):  # in place: a second array might not fit
            if row != index:
                array[row] = array[index]
        labels = None if images.labels is None else images.labels[readable]
        cached = ArrayImages(
            array[: len(readable)],
            labels,
            batchable=is_batchable(array.shape[1:]),
            blocks=images.blocks and images.blocks.of(readable),
        )
        return Reading(cached, readable, tuple(unreadable), array.shape[1:])
    common_shape = next(iter(shapes)) if len(shapes) == 1 else None
    shape = common_shape if common_shape and is_batchable(common_shape) else None
    unchanged = not unreadable and shape == images.shape
    lazy = images if unchanged else subset(images, readable, shape=shape)
    return Reading(lazy, readable, tuple(unreadable), common_shape)


def cached_lazily(reading: Reading) -> Reading:
    """Returns a reading whose images are kept in memory from their first use on.

    Args:
        reading: of images that have a common shape.
    """
    shape = reading.common_shape
    if shape is None:
        raise ValueError("reading: expected images of one shape")
    images = CachedImages(reading.images, shape, batchable=is_batchable(shape))
    return replace(reading, images=images)


class _Result(NamedTuple):
    """One image: pixels if they are kept, and shape; or the reason why it is unreadable."""

    pixels: np.ndarray | None
    shape: Shape | None
    error: str = ""


def _read_blocks(images: Images, *, keep_pixels: bool) -> Iterator[list[_Result]]:
    """Yields the results in index order, block by block."""

    def read(index: int) -> _Result:
        try:
            if keep_pixels:
                pixels = images[index]
                return _Result(pixels, pixels.shape)
            return _Result(None, images.shape_of(index))
        except UnreadableImage as error:
            return _Result(None, None, str(error))

    # Each thread that waits for a server holds one image, or there would be hundreds in memory.
    block, workers = (1, REQUESTS) if images.remote else (_BLOCK, None)

    def read_block(start: int) -> list[_Result]:
        return [read(index) for index in range(start, min(start + block, len(images)))]

    return map_in_order(read_block, range(0, len(images), block), workers)


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], workers: int | None = None
) -> Iterator[R]:
    """Calls a function for each item with several threads.

    Args:
        function: called from several threads at once.
        items: its arguments.
        workers: number of threads, where they wait for a server; None: as many as there are cores.

    Yields:
        The results in the order of the items. At most two per core, or one per thread that waits
        for a server, are computed ahead, which bounds their memory.
    """
    threads = workers or min(16, os.cpu_count() or 1)
    ahead = workers or 2 * threads
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    try:
        futures: deque[Future[R]] = deque()
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) == ahead:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:  # also on Ctrl-C: calls that haven't begun are dropped, others end by themselves
        pool.shutdown(wait=False, cancel_futures=True)
