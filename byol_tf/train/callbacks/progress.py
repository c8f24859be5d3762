"""The progress of a run on the screen: a line for each epoch, and a bar within it."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras

from byol_tf.config.schedule import Schedule
from byol_tf.logs import bar, show_status, time_left

_COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "loss": ("loss", "{:.4f}".format),
    "probe_accuracy": ("probe", "{:.1%}".format),
    "projection_std": ("spread", "{:.2f}".format),
    "effective_rank": ("rank", "{:.1f}".format),
    "images_per_second": ("images/s", "{:,.0f}".format),
}
"""Column of the history -> its heading on the screen, and how a value is shown."""
_STATUS_SECONDS = 0.1


class Progress(keras.callbacks.Callback):
    """Prints four figures of each epoch and the time left for the run, and shows a bar within it.

    The other figures are in `history.csv` and TensorBoard.

    Args:
        epochs: of the complete run.
        schedule: of the run.
        rows: of the history; the newest is printed at an epoch's end.
    """

    def __init__(self, epochs: int, schedule: Schedule, rows: Sequence[dict[str, float]]):
        super().__init__()
        self.epochs, self.schedule, self.rows = epochs, schedule, rows
        self._steps_left = schedule.total_steps
        self._clock: tuple[float, int] | None = None  # time and steps left after the first call
        self._next_status = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        """Prints the headings, and the figures so far: the untrained network's in a new run."""
        headings = "".join(f"{_COLUMNS[name][0]:>11}" for name in self._columns())
        print(f"  {'epoch':>9}{headings}   time left")  # noqa: T201
        self._print_row()
        show_status("compiling the training step")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows the bar, and the work that follows an epoch's last step."""
        now, steps = time.monotonic(), self.model.steps_seen
        self._steps_left = self.schedule.total_steps - steps
        if self._clock is None:
            self._clock = now, self._steps_left
        length = self.schedule.steps_per_epoch
        step = steps - self._epoch * length
        epoch = f"{self._epoch + 1}/{self.epochs}"
        if step == length:
            show_status(f"  {epoch:>9}  measures and checkpoint")
        elif now >= self._next_status:
            self._next_status = now + _STATUS_SECONDS
            show_status(
                f"  {epoch:>9}  {bar(step / length)}  {step:,}/{length:,}  "
                f"loss {logs['loss']:.4f}  {self._time_left()}"
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Prints the epoch's line."""
        self._print_row()

    def _columns(self) -> list[str]:
        labelled = any("probe_accuracy" in row for row in self.rows)
        left_out = "images_per_second" if labelled else "probe_accuracy"
        return [name for name in _COLUMNS if name != left_out]

    def _print_row(self) -> None:
        if not self.rows:
            return
        row = self.rows[-1]
        values = "".join(
            f"{_COLUMNS[name][1](row[name]) if name in row else '-':>11}"
            for name in self._columns()
        )
        epoch = f"{row['epoch']:.0f}/{self.epochs}"
        left = self._time_left().removesuffix(" left")
        print(f"  {epoch:>9}{values}   {left}".rstrip())  # noqa: T201

    def _time_left(self) -> str:
        if self._clock is None or not self._steps_left:
            return ""
        start, steps_left_then = self._clock
        if steps_left_then == self._steps_left:  # the time to compile tells nothing
            return ""
        seconds = time.monotonic() - start
        return time_left(seconds / (steps_left_then - self._steps_left) * self._steps_left)
