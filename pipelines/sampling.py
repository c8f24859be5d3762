"""Which images each step of a run sees, on one machine or shared by many: a function of (seed,
epoch, position), held nowhere."""

from dataclasses import dataclass

import tensorflow as tf


@dataclass(frozen=True)
class Order:
    """The images of each step, a permutation drawn for each epoch. Each epoch leaves out another
    remainder that fills no batch.

    Nothing is stored: any step of any worker can be asked for, and costs the same. Workers take a
    part of each batch, so together they see what one would see, whatever their number.

    Args:
        count: images in the set.
        batch_size: images a step, over all workers.
        seed: the run's.
        worker: whose part of each batch, counted from 0.
        workers: how many equal parts each batch has.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a
            batch.
    """

    count: int
    batch_size: int
    seed: int
    worker: int = 0
    workers: int = 1

    def __post_init__(self):
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
    def share(self) -> int:
        """Images of a batch that are this worker's."""
        return self.batch_size // self.workers

    def at(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """What the worker reads for a step.

        Args:
            step: int64 scalar, 0 for the first of the run.

        Returns:
            epoch (int64 scalar), positions in the epoch (int64 `[share]`, consecutive) and image
            indices (int64 `[share]`).
        """
        steps_per_epoch = self.count // self.batch_size
        epoch = step // steps_per_epoch
        first = self.worker * self.share
        positions = (step % steps_per_epoch) * self.batch_size + tf.range(
            first, first + self.share, dtype=tf.int64
        )
        order_seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        indices = tf.random.experimental.index_shuffle(
            positions, order_seed, tf.constant(self.count - 1, tf.int64)
        )
        return epoch, positions, indices
