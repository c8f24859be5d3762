"""Order of a run's images: a function of (seed, epoch, position), stored nowhere."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Order:
    """The images of each step: a new permutation each epoch.

    The images that fill no batch are skipped; they are others in each epoch. Nothing is stored: any
    step of any worker can be asked for, at the same cost. Workers take parts of each batch, so
    together they read what a single worker would read, whatever their number.

    Args:
        count: images in the set.
        batch_size: images per step, over all workers.
        seed: the run's.
        worker: which part of each batch is read, counted from 0.
        workers: number of equal parts of each batch.

    Raises:
        ValueError: there are fewer images than a batch holds, or the workers don't divide a batch.
    """

    count: int
    batch_size: int
    seed: int
    worker: int = 0
    workers: int = 1

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

    def _indices(self, positions: tf.Tensor, epoch: tf.Tensor) -> tf.Tensor:
        return tf.random.experimental.index_shuffle(
            positions,
            tf.stack([tf.constant(self.seed, tf.int64), epoch]),
            tf.constant(self.count - 1, tf.int64),
        )
