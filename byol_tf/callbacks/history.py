"""One row an epoch: in memory, in `history.csv` and in TensorBoard."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import keras

from byol_tf.board import show_row
from byol_tf.event_log import EventLog
from byol_tf.run_folder import write_atomically

COLUMNS = (
    "epoch",
    "loss",
    "tau",
    "learning_rate",
    "probe_accuracy",
    "knn_accuracy",
    "projection_std",
    "projection_cosine",
    "effective_rank",
    "images_per_second",
    "skipped_steps",
)


class History(keras.callbacks.Callback):
    """Keeps the rows of a run, those of an earlier part included. Row 0 is the untrained network.

    Args:
        path: `history.csv`, written whole after each epoch so that a crash can't leave half a row.
        events: TensorBoard's.
        rows: of the run so far, each a dict with some of `COLUMNS`.
        say: prints a line for people.
    """

    def __init__(self, path: Path, events: EventLog, rows: list[dict[str, float]], say: Callable[[str], None] = print):
        super().__init__()
        self.path, self.events, self.rows, self.say = path, events, rows, say

    def add(self, epoch: int, figures: dict[str, float]) -> None:
        """Adds the row of an epoch (1 for the first, 0 for the untrained network) and writes it everywhere."""
        row = {"epoch": epoch} | {name: float(figures[name]) for name in COLUMNS[1:] if name in figures}
        self.rows.append(row)
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        try:
            write_atomically(self.path, text.getvalue())
        except OSError as error:  # a full disk ends no run, and the next epoch writes all rows again
            self.say(f"warning: {self.path.name} not written: {error}. The run goes on, and tries again after the next epoch")
        self.events.add(epoch, lambda: show_row(row))

    def on_epoch_end(self, epoch, logs=None):
        self.add(epoch + 1, logs or {})
