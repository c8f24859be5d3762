"""Order of a run's images: a function of (seed, epoch, position), stored nowhere."""

import functools
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from pipelines.sources.blocks import Blocks
from pipelines.windows import Windows


@dataclass(frozen=True)
class Order:
    """The images of each step: a new permutation each epoch.

    The images that fill no batch are skipped; they are others in each epoch. Any step of any worker
    can be asked for, at the same cost: nothing is stored, but for the order of two epochs of images
    that are read in blocks. Workers take parts of each batch, so together they read what a single
    worker would read, whatever their number.

    Args:
        count: images in the set.
        batch_size: images per step, over all workers.
        seed: the run's.
        worker: which part of each batch is read, counted from 0.
        workers: number of equal parts of each batch.
        blocks: of images that are read in blocks, whose order is that of `windows.py`; None: each
            order of the images is as likely as any other.

    Raises:
        ValueError: there are fewer images than a batch holds, or the workers don't divide a batch.
    """

    count: int
    batch_size: int
    seed: int
    worker: int = 0
    workers: int = 1
    blocks: Blocks | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.count < self.batch_size:
            raise ValueError(
                f"batch_size: expected at most the number of images, {self.count}; received "
                f"{self.batch_size}"
            )
        if self.workers < 1 or self.batch_size % self.workers:
            raise ValueError(
                f"workers: expected a divisor of batch_size ({self.batch_size}); received "
                f"{self.workers}"
            )
        if not 0 <= self.worker < self.workers:
            raise ValueError(
                f"worker: expected a number from 0 to {self.workers - 1}, as there are "
                f"{self.workers} workers; received {self.worker}"
            )

    @property
    def images_per_worker(self) -> int:
        """Number of images of a batch that this worker reads."""
        return self.batch_size // self.workers

    def remainder(self, epoch: int) -> np.ndarray:
        """Returns the images of an epoch that fill no batch: indices, int64 `[k]`."""
        positions = np.arange(self.count - self.count % self.batch_size, self.count)
        if not len(positions):  # which index_shuffle refuses
            return positions
        return self._indices(tf.constant(positions), tf.constant(epoch, tf.int64)).numpy()

    def at(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns which images this worker reads in a step.

        Args:
            step: int64 scalar, 0 for the first of the run.

        Returns:
            epoch (int64 scalar), positions in the epoch (int64 `[images_per_worker]`, consecutive)
            and image indices (int64 `[images_per_worker]`).
        """
        steps_per_epoch = self.count // self.batch_size
        epoch = step // steps_per_epoch
        first = self.worker * self.images_per_worker
        positions = (step % steps_per_epoch) * self.batch_size + tf.range(
            first, first + self.images_per_worker, dtype=tf.int64
        )
        return epoch, positions, self._indices(positions, epoch)

    def newly_opened(self, step: int, since: int) -> np.ndarray:
        """Returns the images that this worker reads from windows whose first read is in this step.

        Args:
            step: of the run.
            since: the first step that is read. There it is the rest of all windows that have begun.

        Returns:
            Image indices, int64 `[k]`, in no order; none where images aren't read in blocks.
        """
        if self._windows is None:
            return np.empty(0, np.int64)
        epoch, row = divmod(step, self.count // self.batch_size)
        images, rows, begins = self._windows.openings(epoch)
        low = 0 if step == since else np.searchsorted(begins, row)
        high = np.searchsorted(begins, row, side="right")
        return images[low:high][rows[low:high] >= row]

    @functools.cached_property
    def _windows(self) -> Windows | None:
        if self.blocks is None:
            return None
        first = self.worker * self.images_per_worker
        part = slice(first, first + self.images_per_worker)
        return Windows(self.blocks, self.batch_size, self.seed, part)

    def _indices(self, positions: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        windows = self._windows
        if windows is not None:
            indices = tf.numpy_function(
                lambda where, number: windows.epoch(int(number)).images[where],
                [positions, epoch],
                tf.int64,
                stateful=False,
            )
            return tf.ensure_shape(indices, positions.shape)
        return tf.random.experimental.index_shuffle(
            positions,
            tf.stack([tf.constant(self.seed, tf.int64), epoch]),
            tf.constant(self.count - 1, tf.int64),
        )
