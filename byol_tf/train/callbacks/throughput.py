"""Images per second of the training steps alone."""

import time
from collections.abc import Mapping
from typing import Any

import keras

_STATE = ("seconds", "steps", "epoch_seconds", "epoch_steps")


class Throughput(keras.callbacks.Callback):
    """Puts `images_per_second` of the epoch so far into the logs.

    What callbacks do at an epoch's end, such as a probe, isn't counted.

    Args:
        batch_size: images per step, over all replicas.
        state: of an earlier part of the same run, which is continued; other keys are ignored.
    """

    def __init__(self, batch_size: int, state: Mapping[str, Any] | None = None):
        super().__init__()
        self.batch_size = batch_size
        self.seconds, self.steps, self.epoch_seconds, self.epoch_steps = (
            (state or {}).get(name, 0) for name in _STATE
        )
        self._last_time = 0.0
        self._last_batch = 0

    @property
    def images_per_second(self) -> float:
        """Mean over the run so far; 0 before its first step."""
        return self.steps * self.batch_size / self.seconds if self.seconds else 0.0

    @property
    def state(self) -> dict[str, float]:
        """Time and steps of the run so far, and of its epoch."""
        return {name: getattr(self, name) for name in _STATE}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts the clock."""
        self._last_time, self._last_batch = time.perf_counter(), 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts the steps since the last call."""
        now, steps = time.perf_counter(), batch + 1 - self._last_batch
        self.seconds += now - self._last_time
        self.epoch_seconds += now - self._last_time
        self.steps += steps
        self.epoch_steps += steps
        self._last_time, self._last_batch = now, batch + 1
        self._log(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Logs the epoch's mean and starts to count the next."""
        self._log(logs)
        self.epoch_seconds, self.epoch_steps = 0.0, 0

    def _log(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs["images_per_second"] = self.epoch_steps * self.batch_size / self.epoch_seconds
