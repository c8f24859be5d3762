"""One row an epoch: in memory, in `history.csv` and in TensorBoard."""

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from byol_tf.runs.files import write_csv
from byol_tf.train.tensorboard import EventLog

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
        path: `history.csv`, written whole each time so that a crash can't leave half a row.
        events: TensorBoard's.
        rows: of the run so far, each a dict with some of `COLUMNS`.
        say: prints a line for people.
    """

    def __init__(
        self,
        path: Path,
        events: EventLog,
        rows: list[dict[str, float]],
        say: Callable[[str], None] = print,
    ):
        super().__init__()
        self.path, self.events, self.rows, self.say = path, events, rows, say

    def add(self, epoch: int, figures: dict[str, float]) -> None:
        """Adds the row of an epoch (1 for the first, 0 for the untrained network) and writes it
        everywhere."""
        row = {"epoch": epoch} | {
            name: float(figures[name]) for name in COLUMNS[1:] if name in figures
        }
        self.rows.append(row)
        try:
            self.write()
        except (
            OSError
        ) as error:  # a full disk ends no run, and the next epoch writes all rows again
            self.say(
                f"warning: {self.path.name} not written: {error}. The run goes on, and tries again "
                "after the next epoch"
            )
        shown = [(*SCALARS[name], value) for name, value in row.items() if name != "epoch"]
        self.events.add(
            epoch,
            lambda: [tf.summary.scalar(tag, value, description=text) for tag, text, value in shown],
        )

    def write(self) -> None:
        """Writes all rows. `OSError` if the disk refuses: then what was there stays."""
        rows = [[row.get(column) for column in COLUMNS] for row in self.rows]
        write_csv(self.path, COLUMNS, rows)

    def on_epoch_end(self, epoch, logs=None):
        self.add(epoch + 1, logs or {})


SCALARS = {
    "loss": (
        "training/loss",
        "The mean of an epoch's steps: of BYOL 2 - 2 cos, both directions added. BYOL paper, "
        "equation 2.",
    ),
    "learning_rate": (
        "training/learning_rate",
        "Of the epoch's last step: base rate x batch / 256, warm-up, cosine. BYOL paper, section "
        "3.2.",
    ),
    "tau": (
        "training/tau",
        "How slowly the target network follows: its share of itself in each update. BYOL paper, "
        "section 3.1.",
    ),
    "skipped_steps": (
        "training/skipped_steps",
        "Steps so far that had NaN or infinity in them and changed nothing.",
    ),
    "images_per_second": (
        "training/images_per_second",
        "Images learned from each second of the epoch.",
    ),
    "probe_accuracy": (
        "accuracy/linear",
        "Top-1 of a linear probe on frozen representations, as a fraction. STL-10 paper, section "
        "3.4.",
    ),
    "knn_accuracy": (
        "accuracy/knn",
        "Top-1 of a vote of the nearest neighbours on frozen representations. Wu et al. 2018, "
        "section 3.4.",
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
        "Directions that representations use. Roy and Vetterli 2007.",
    ),
}
"""Column of `history.csv` -> tag, and the text that TensorBoard has beside it."""
