"""Order of images that are read in blocks: blocks are shuffled, then images within windows of them.

The sequence of all blocks, shuffled anew in each epoch, is cut into equal lanes, and each batch
takes equally many images from each lane. Workers take parts of each batch, thus lanes of their own,
so that together they read each block once. Within a lane, images are shuffled in windows of
consecutive blocks. All is a function of (seed, epoch).
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from pipelines.sources.blocks import Blocks


@dataclass(frozen=True)
class WindowedEpoch:
    """The images of an epoch.

    Attributes:
        images: int64 `[n]`, the index of the image at each position; the last ones fill no batch.
        windows: int64 `[steps, batch_size]`, the window that each image of each batch is from.
    """

    images: np.ndarray
    windows: np.ndarray


class Windows:
    """Order of images in blocks. Two epochs of it are stored; several threads may use it.

    Args:
        blocks: of the images, at least `batch_size` of them.
        batch_size: images per step, over all workers.
        seed: of the run.
        part: which positions of each batch this worker reads.
    """

    def __init__(self, blocks: Blocks, batch_size: int, seed: int, part: slice) -> None:
        self._blocks, self._batch_size, self._seed, self._part = blocks, batch_size, seed, part
        self.epoch = functools.lru_cache(2)(self._shuffled)
        """Number of an epoch -> its `WindowedEpoch`."""
        self.openings = functools.lru_cache(2)(self._openings)
        """Number of an epoch -> what `_openings` returns."""

    def _shuffled(self, epoch: int) -> WindowedEpoch:
        rng = np.random.default_rng([self._seed, epoch])
        ids, batch_size, max_open = self._blocks.ids, self._batch_size, self._blocks.max_open
        starts = np.concatenate([[0], np.flatnonzero(np.diff(ids)) + 1])
        shuffled = rng.permutation(len(starts))
        sizes = np.diff(starts, append=len(ids))[shuffled]
        rank = np.repeat(np.arange(len(sizes)), sizes)  # of each image's block among the shuffled
        images = np.arange(len(ids)) + (starts[shuffled] - np.cumsum(sizes) + sizes)[rank]

        lanes = math.gcd(batch_size, max_open)
        steps = len(ids) // batch_size
        ranks = rank[: steps * batch_size].reshape(lanes, -1)
        windows = (ranks - ranks[:, :1]) // (max_open // lanes)
        order = np.argsort(windows + rng.random(windows.shape), axis=1, kind="stable")
        windows += np.arange(lanes)[:, None] * len(sizes)  # a number of its own for each
        of_lanes = np.take_along_axis(images[: windows.size].reshape(lanes, -1), order, axis=1)

        def in_batches(of_lanes: np.ndarray) -> np.ndarray:
            parts = of_lanes.reshape(lanes, steps, -1)
            return parts.swapaxes(0, 1).reshape(steps, batch_size)

        images[: windows.size] = in_batches(of_lanes).ravel()
        return WindowedEpoch(images, in_batches(windows))

    def _openings(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns, for every image that this worker reads in the epoch, three int64 `[k]`.

        They are its index, the step that reads it, and the step that first reads its window;
        ascending by the last.
        """
        shuffled = self.epoch(epoch)
        windows = shuffled.windows[:, self._part]
        images = shuffled.images[: shuffled.windows.size].reshape(shuffled.windows.shape)
        _, first, number = np.unique(windows, return_index=True, return_inverse=True)
        begins = (first // windows.shape[1])[number.ravel()]
        order = np.argsort(begins, kind="stable")
        rows = np.repeat(np.arange(len(windows)), windows.shape[1])
        return images[:, self._part].ravel()[order], rows[order], begins[order]
