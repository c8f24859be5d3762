"""History of a run, a row per epoch: in memory, in `history.csv` and in TensorBoard."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from byol_tf.runs.best_epoch import best_epoch
from byol_tf.runs.files import write_csv
from byol_tf.train.tensorboard import EventLog

logger = logging.getLogger(__name__)

SCALARS = {
    "loss": (
        "training/loss",
        "Mean over the epoch's steps; for BYOL 2 - 2 cos, summed over the directions. BYOL paper, "
        "equation 2.",
    ),
    "tau": (
        "training/tau",
        "Decay rate of the target network: its share of itself in each update. BYOL paper, section "
        "3.1.",
    ),
    "learning_rate": (
        "training/learning_rate",
        "Learning rate of the epoch's last step, that of variables without one of their own. BYOL "
        "paper, section 3.2.",
    ),
    "probe_accuracy": (
        "accuracy/linear",
        "Top-1 of a linear probe on frozen representations, as a fraction. STL-10 paper, section "
        "3.4.",
    ),
    "knn_accuracy": (
        "accuracy/knn",
        "Top-1 of a k-nearest-neighbour vote on frozen representations. Wu et al. 2018, section "
        "3.4.",
    ),
    "projection_std": (
        "collapse/projection_std",
        "Standard deviation of normalised projections x sqrt(d): 1 is scattered, 0 collapsed. "
        "SimSiam report, section IV.A.",
    ),
    "projection_cosine": (
        "collapse/projection_cosine",
        "Mean cosine of projections of different images: 0 is scattered, 1 collapsed.",
    ),
    "effective_rank": (
        "collapse/effective_rank",
        "Number of directions that the representations use. Roy and Vetterli 2007.",
    ),
    "best_epoch": (
        "accuracy/best_epoch",
        "Epoch with the highest monitor.metric so far, where a run stops early by it or exports "
        "the best.",
    ),
    "images_per_second": (
        "training/images_per_second",
        "Images per second of the epoch's training steps.",
    ),
    "data_wait": (
        "training/data_wait",
        "Fraction of the epoch's training time in which steps waited for their batch.",
    ),
    "skipped_steps": (
        "training/skipped_steps",
        "Steps so far that had NaN or infinity in them and changed nothing.",
    ),
}
"""Column of `history.csv` -> TensorBoard tag, and the description shown there."""
COLUMNS = ("epoch", *SCALARS)
"""Columns of `history.csv`; a cell is empty where nothing was measured."""


class History(keras.callbacks.Callback):
    """Keeps and writes the rows of a run. Row 0 is the untrained network.

    Args:
        path: `history.csv`, rewritten each time, so that a crash can't leave half a row.
        events: TensorBoard's.
        rows: of the run so far, each a dict with some of `COLUMNS`.
        log: called with each further row, as TensorBoard tag -> value, and its epoch.
        compared: the column by which epochs are compared, in a run that compares them: each row
            has the best epoch so far by it.
    """

    def __init__(
        self,
        path: Path,
        events: EventLog,
        rows: list[dict[str, float]],
        log: Callable[[Mapping[str, float], int], object] = lambda values, epoch: None,
        compared: str | None = None,
    ):
        super().__init__()
        self.path, self.events, self.rows, self.log = path, events, rows, log
        self.compared = compared

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        """Adds the row of an epoch and writes it everywhere; a full disk is only logged.

        Args:
            epoch: 1 for the first, 0 for the untrained network.
            values: column -> value; other names are ignored.
        """
        row = {"epoch": epoch} | {
            name: float(values[name]) for name in COLUMNS[1:] if name in values
        }
        self.rows.append(row)
        if self.compared is not None and (best := best_epoch(self.rows, self.compared)) is not None:
            row["best_epoch"] = float(best)
        try:
            self.write()
        except OSError as error:  # the next epoch writes all rows again
            logger.warning(
                "%s not written: %s. The run continues, and writes it after the next epoch",
                self.path.name,
                error,
            )
        scalars = [(*SCALARS[name], value) for name, value in row.items() if name != "epoch"]
        self.events.add(
            epoch,
            lambda: [
                tf.summary.scalar(tag, value, description=text) for tag, text, value in scalars
            ],
        )
        self.log({tag: value for tag, _, value in scalars}, epoch)

    def write(self) -> None:
        """Writes all rows.

        Raises:
            OSError: if the disk refuses; the file is as it was then.
        """
        rows = [[row.get(column) for column in COLUMNS] for row in self.rows]
        write_csv(self.path, COLUMNS, rows)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the epoch's row."""
        self.add(epoch + 1, logs or {})
