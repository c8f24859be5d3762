"""Monitors of the training steps: waiting for data, skipped steps, jumps of the loss."""

import logging
import time
from collections import deque
from typing import Any

import keras

from byol_tf.train.input_watchdog import InputWatchdog

logger = logging.getLogger(__name__)

SLOW_INPUT = 1 / 3
"""Fraction of the time spent waiting for data from which on a warning is logged. A small run whose
two cores other programs used too had 22% and 32%, which says nothing about its input."""
_WINDOW = 30.0
"""Seconds of training that must show it, so that one hiccup of a disk doesn't."""


class DataWait(keras.callbacks.Callback):
    """Logs `data_wait`, the fraction of an epoch's training time spent waiting for batches.

    Warns once, with both speeds, if the steps of half a minute waited for a third of their time.
    The time of other callbacks at an epoch's end counts neither as waiting nor as training.

    Args:
        watchdog: of the batches that `fit` is given.
        batch_size: images per step, over all replicas.
        remedies: what could be changed so that the host does less per image; may be empty.
        window: seconds of training over which the warning is decided.
    """

    def __init__(
        self, watchdog: InputWatchdog, batch_size: int, remedies: str, window: float = _WINDOW
    ) -> None:
        super().__init__()
        self.watchdog, self.batch_size = watchdog, batch_size
        self.remedies, self.window = remedies, window
        self._warned = False
        self._window_steps, self._window_seconds, self._window_waited = 0, 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts an epoch's sums."""
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._last_end = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Notes when a call of one or several steps begins."""
        self._call_begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Adds up what the steps of a call waited, and logs the epoch's fraction so far."""
        now, steps = time.perf_counter(), batch + 1 - self._steps
        waited = estimate_wait(self._call_begin, now, self.watchdog.pop_times(steps))
        self._steps += steps
        self._seconds += now - self._last_end
        self._waited += waited
        logs["data_wait"] = self._waited / self._seconds
        self._window_steps += steps
        self._window_seconds += now - self._last_end
        self._window_waited += waited
        self._last_end = now
        if self._window_seconds >= self.window:
            if not self._warned and self._window_waited >= SLOW_INPUT * self._window_seconds:
                self._warned = True
                self._warn()
            self._window_steps, self._window_seconds, self._window_waited = 0, 0.0, 0.0

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the epoch's fraction."""
        logs["data_wait"] = self._waited / self._seconds

    def _warn(self) -> None:
        images, seconds = self._window_steps * self.batch_size, self._window_seconds
        computing = max(seconds - self._window_waited, 1e-9)
        remedies = f", or less work per image: {self.remedies}" if self.remedies else ""
        logger.warning(
            f"the input is slower than the training step, which waits for data "
            f"{self._window_waited / seconds:.0%} of the time: {images / seconds:,.0f} images/s "
            f"arrive, and it could take {images / computing:,.0f}. More cores would "
            f"help{remedies}. --dry-run measures both"
        )


def estimate_wait(began: float, ended: float, batches: list[tuple[float, float]]) -> float:
    """Estimates how long the steps of one call waited for their batches.

    Where the steps request their own batches, they wait from each request to its arrival. Where a
    buffer of tf.data or of the device requests ahead, the first request came before the call, and
    nobody sees when a step takes a batch: then the steps are assumed to be equally long. Each is at
    most the time from a batch's arrival to the call's end, divided by the steps left.

    Args:
        began: when the call began.
        ended: when it ended.
        batches: when the batch of each step was requested and arrived.

    Returns:
        Seconds, from 0 to `ended - began`.
    """
    if batches[0][0] >= began:
        return sum(arrived - requested for requested, arrived in batches)
    step = min(
        (ended - max(arrived, began)) / (len(batches) - index)
        for index, (_, arrived) in enumerate(batches)
    )
    return max(0.0, ended - began - len(batches) * step)


_HISTORY = 100
"""Steps with whose largest loss a step's is compared."""
_JUMP = 2.0
"""Multiple of that largest loss: well above the noise of batches."""
_LEAST_LOSS = 0.01
"""A smaller loss is no jump: that of unrelated vectors is 2 per direction."""


class StepMonitor(keras.callbacks.Callback):
    """Logs `skipped_steps`, the skipped steps of the run so far, and reports jumps of the loss.

    A jump is a step whose loss is above twice the largest of the 100 steps before it. The first
    jump and the first skipped step of an epoch are logged when they happen, their numbers at its
    end. Nothing else is done: most runs recover. Where one doesn't, its numbers become non-finite
    or it collapses, and the config has policies for both.
    """

    def __init__(self) -> None:
        super().__init__()
        self._losses: deque[float] = deque(maxlen=_HISTORY)
        self._skipped = self._jumps = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts an epoch's counts."""
        self._skipped = self._jumps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Looks at each step of the call that has ended."""
        call = self.model.last_call
        first = self.model.steps_seen - len(call.losses) + 1
        for step, (loss, non_finite) in enumerate(
            zip(call.losses, call.failures, strict=True), start=first
        ):
            if non_finite:
                self._report_skipped(step, non_finite)
            else:
                self._report_jump(step, float(loss))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Logs the run's skipped steps, and reports how many steps of the epoch stood out."""
        logs["skipped_steps"] = self.model.skipped_steps
        if self._skipped > 1:
            logger.info(f"{self._skipped:,} steps of epoch {epoch + 1} were skipped")
        if self._jumps > 1:
            logger.info(f"the loss jumped at {self._jumps:,} steps of epoch {epoch + 1}")

    def _report_skipped(self, step: int, non_finite: tuple[str, ...]) -> None:
        self._skipped += 1
        if self._skipped == 1:
            logger.info(
                f"step {step:,} skipped, not finite: {', '.join(non_finite)} "
                f"({self.model.skipped_steps:,} in this run so far)"
            )

    def _report_jump(self, step: int, loss: float) -> None:
        full = len(self._losses) == _HISTORY
        if full and loss > max(_JUMP * max(self._losses), _LEAST_LOSS):
            self._jumps += 1
            if self._jumps == 1:
                logger.info(
                    f"the loss jumped at step {step:,}: {loss:.3g}, after at most "
                    f"{max(self._losses):.3g} in the {_HISTORY} steps before"
                )
        self._losses.append(loss)
