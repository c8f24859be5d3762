"""Images a second, measured over training steps alone."""

import time

import keras


class Throughput(keras.callbacks.Callback):
    """Puts `images_per_second` of the epoch so far into the logs, without the time of callbacks at the epoch's end.

    Args:
        batch_size: images a step, over all replicas.
        seconds: training time of an earlier part of the same run.
        steps: its steps.
    """

    def __init__(self, batch_size: int, seconds: float = 0.0, steps: int = 0):
        super().__init__()
        self.batch_size = batch_size
        self.seconds, self.steps = seconds, steps
        self._began = self._begun_steps = 0

    @property
    def images_per_second(self) -> float:
        """Mean over the run so far; 0 before its first step."""
        return self.steps * self.batch_size / self.seconds if self.seconds else 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self._began, self._begun_steps = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        done = batch + 1 - self._begun_steps
        self._begun_steps += done
        self.steps += done
        self._elapsed = time.perf_counter() - self._began
        logs["images_per_second"] = self._begun_steps * self.batch_size / self._elapsed

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += self._elapsed
        logs["images_per_second"] = self._begun_steps * self.batch_size / self._elapsed
