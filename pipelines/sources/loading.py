"""One pass over images with several threads: to hold them in memory, or to find out which can be
read."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.images import ArrayImages, Images, Shape, subset

_BLOCK = 8  # images a thread takes at once
_TOGETHER = 512 * 512  # pixels of an image


def large(shape: Shape) -> bool:
    """Whether images of `(height, width, 3)` are so large that a batch of them, as float32, would
    take a machine's memory."""
    return shape[0] * shape[1] > _TOGETHER


@dataclass(frozen=True)
class Reading:
    """What one pass found.

    Attributes:
        images: those that could be read; arrays if they are held. Their `shape` is known if they
            all have one; large ones have none, and are taken one by one.
        held: whether they are in memory.
        good: int64, ascending: their indices before the pass.
        bad: (index before the pass, reason) of the others.
    """

    images: Images
    held: bool
    good: np.ndarray
    bad: tuple[tuple[int, str], ...]


def read_through(
    images: Images, *, hold: bool, progress: Callable[[int], None] | None = None
) -> Reading:
    """Reads every image once.

    Args:
        images: reading one may raise `UnreadableImage`.
        hold: keep the pixels. Given up when two images differ in shape.
        progress: called with the number of images done so far.

    Returns:
        What could be read, and what couldn't.
    """
    count = len(images)
    array: np.ndarray | None = None
    shapes: set[Shape] = set() if images.shape is None else {images.shape}
    bad: list[tuple[int, str]] = []
    done = 0
    for block in _blocks(images, keep=hold):
        for pixels, shape, reason in block:
            if reason is not None:
                bad.append((done, reason))
            else:
                shapes.add(shape)
                if hold and len(shapes) == 1 and pixels is not None:
                    if array is None:  # pages of np.empty cost nothing until they are written
                        array = np.empty((count, *shape), np.uint8)
                    array[done] = pixels
                else:
                    hold, array = False, None
            done += 1
        if progress is not None:
            progress(done)

    good = np.setdiff1d(
        np.arange(count, dtype=np.int64), np.array([index for index, _ in bad], np.int64)
    )
    labels = None if images.labels is None else images.labels[good]
    if array is not None:
        for row, index in enumerate(good):  # in place: a second array might not fit
            if row != index:
                array[row] = array[index]
        return Reading(
            ArrayImages(array[: len(good)], labels, together=not large(array.shape[1:])),
            True,
            good,
            tuple(bad),
        )
    shape = next(iter(shapes)) if len(shapes) == 1 and not any(map(large, shapes)) else None
    readable = images if not bad and shape == images.shape else subset(images, good, shape=shape)
    return Reading(readable, False, good, tuple(bad))


def held_in_memory(images: Images, progress: Callable[[int], None] | None = None) -> ArrayImages:
    """Reads all images into one uint8 array, with several threads.

    Args:
        images: all of one shape.
        progress: called with the number of images done so far.

    Raises:
        ValueError: the images differ in shape.
        UnreadableImage: one of them can't be read.
    """
    if isinstance(images, ArrayImages):
        return images
    reading = read_through(images, hold=True, progress=progress)
    if reading.bad:
        index, reason = reading.bad[0]
        raise UnreadableImage(f"image {index}: {reason}")
    if not isinstance(reading.images, ArrayImages):
        raise ValueError("images: expected one shape; these differ in size")
    return reading.images


_Found = tuple[np.ndarray | None, Shape | None, str | None]  # pixels, shape, why it can't be read


def _blocks(images: Images, *, keep: bool) -> Iterator[list[_Found]]:
    """Yields what was found in index order, block by block."""

    def read(start: int) -> list[_Found]:
        found: list[_Found] = []
        for index in range(start, min(start + _BLOCK, len(images))):
            try:
                pixels = images[index] if keep else None
                found.append(
                    (pixels, images.shape_of(index) if pixels is None else pixels.shape, None)
                )
            except UnreadableImage as error:
                found.append((None, None, str(error)))
        return found

    workers = min(16, os.cpu_count() or 1)
    ahead = 2 * workers  # blocks in flight: the pixels of no more than these wait for their turn
    pool = ThreadPoolExecutor(workers, thread_name_prefix="read")
    try:
        starts = range(0, len(images), _BLOCK)
        waiting = [pool.submit(read, start) for start in starts[:ahead]]
        for position in range(len(starts)):
            found = waiting.pop(0).result()
            if position + ahead < len(starts):
                waiting.append(pool.submit(read, starts[position + ahead]))
            yield found
    finally:  # also on Ctrl-C: what hasn't begun is dropped, so nobody waits for it
        pool.shutdown(cancel_futures=True)
