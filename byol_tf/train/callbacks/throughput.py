"""Images a second, measured over training steps alone."""

import time

import keras


class Throughput(keras.callbacks.Callback):
    """Puts `images_per_second` of the epoch so far into the logs, without the time of callbacks at
    the epoch's end.

    Args:
        batch_size: images a step, over all replicas.
        seconds: training time of an earlier part of the same run.
        steps: its steps.
        epoch_seconds, epoch_steps: the part of both that belongs to the epoch that goes on.
    """

    def __init__(
        self,
        batch_size: int,
        seconds: float = 0.0,
        steps: int = 0,
        epoch_seconds: float = 0.0,
        epoch_steps: int = 0,
    ):
        super().__init__()
        self.batch_size = batch_size
        self.seconds, self.steps = seconds, steps
        self.epoch_seconds, self.epoch_steps = epoch_seconds, epoch_steps
        self._last = 0.0
        self._batches = 0

    @property
    def images_per_second(self) -> float:
        """Mean over the run so far; 0 before its first step."""
        return self.steps * self.batch_size / self.seconds if self.seconds else 0.0

    @property
    def state(self) -> dict[str, float]:
        """What another object of this class takes to go on."""
        return {
            name: getattr(self, name)
            for name in ("seconds", "steps", "epoch_seconds", "epoch_steps")
        }

    def on_epoch_begin(self, epoch, logs=None):
        self._last, self._batches = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        now, done = time.perf_counter(), batch + 1 - self._batches
        self.seconds += now - self._last
        self.epoch_seconds += now - self._last
        self.steps += done
        self.epoch_steps += done
        self._last, self._batches = now, batch + 1
        logs["images_per_second"] = self.epoch_steps * self.batch_size / self.epoch_seconds

    def on_epoch_end(self, epoch, logs=None):
        logs["images_per_second"] = self.epoch_steps * self.batch_size / self.epoch_seconds
        self.epoch_seconds, self.epoch_steps = 0.0, 0
