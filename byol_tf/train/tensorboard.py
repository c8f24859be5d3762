"""TensorBoard logs of a run: events that survive a full disk, config, figures and projector."""

import contextlib
import io
import json
import logging
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import api as hparams

from byol_tf.config.diff import defaults_for, flat
from byol_tf.config.loading import resolved_json
from byol_tf.config.schema import Config
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.files import write_atomically
from byol_tf.runs.summary import RunFacts
from pipelines.sources import false_color, resize_and_center_crop

logger = logging.getLogger(__name__)

_ALWAYS_SHOWN = (
    "seed",
    "data.source",
    "views.size",
    "encoder.name",
    "encoder.width",
    "encoder.normalization",
    "predictor.kind",
    "objective.target",
    "objective.negatives",
    "tau.schedule",
    "tau.base",
    "optimizer.name",
    "optimizer.base_learning_rate",
    "optimizer.weight_decay",
    "training.epochs",
    "training.batch_size",
)
"""Hyperparameters of every run, at their defaults too: the dashboard shows them without gaps."""
_FIGURES = ("curves", "collapse", "neighbours", "map", "confusion")
_THUMBNAIL = 48
"""Pixels; 1,000 thumbnails make a sprite of 1,536, and TensorBoard takes up to 8,192."""
_PROJECTOR = f"""\
embeddings {{
  tensor_name: "representations"
  tensor_path: "representations.tsv"
  metadata_path: "classes.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {_THUMBNAIL}
    single_image_dim: {_THUMBNAIL}
  }}
}}
"""


class EventLog:
    """Writes TensorBoard events; what the disk doesn't take comes with the next, in a new file.

    TensorFlow leaves half an event where the disk was full, and a reader stops there. So the file
    is truncated to its last complete event.

    Args:
        folder: of the event files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: tf.summary.SummaryWriter | None = None
        self._older_files: set[Path] = set()
        self._complete_bytes = 0  # of the open file
        self._pending: list[tuple[int, Callable[[], object]]] = []
        self._failed = False

    def add(self, step: int, write: Callable[[], object]) -> None:
        """Writes the events of a step, and those that couldn't be written before.

        Args:
            step: position on TensorBoard's horizontal axis.
            write: calls `tf.summary` functions. It is called again if the disk was full.
        """
        self._pending.append((step, write))
        try:
            writer = self._writer or self._open()
            for pending_step, write_pending in self._pending:
                with writer.as_default(step=pending_step):
                    write_pending()
            writer.flush()
            # There is no file if somebody removed it.
            self._complete_bytes = max((path.stat().st_size for path in self._files()), default=0)
        except (OSError, tf.errors.OpError) as error:
            if not self._failed:
                logger.warning(
                    "%s: events not written: %s. The run continues, and they come with the next",
                    self.folder,
                    _first_line(error),
                )
            self._failed = True
            self._discard_incomplete()
            return
        self._failed = False
        self._pending.clear()

    def close(self) -> None:
        """Closes the file; events that are still pending are lost."""
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError):
                self._writer.close()
            self._writer = None

    def _open(self) -> tf.summary.SummaryWriter:
        self._older_files, self._complete_bytes = set(), 0
        self._older_files = self._files()
        self._writer = tf.summary.create_file_writer(str(self.folder))
        return self._writer

    def _files(self) -> set[Path]:
        """Returns the open file, whose name TensorFlow chooses; none before it is made."""
        return set(self.folder.glob("events.*")) - self._older_files

    def _discard_incomplete(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            for path in self._files():
                if self._complete_bytes:
                    os.truncate(path, self._complete_bytes)
                else:
                    path.unlink()


def show_config(config: Config, run_name: str) -> None:
    """Writes the config as text, and its hyperparameters for the HParams dashboard.

    To be called through `EventLog.add`.

    Args:
        config: of the run.
        run_name: name of the run folder. Each run is a trial of its own, so that seeds stand side
            by side.
    """
    tf.summary.text("config", f"```\n{resolved_json(config)}\n```")
    hparams.hparams(hyperparameters(config), trial_id=run_name)


def hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """Returns the values of keys that studies vary or that differ from their defaults.

    Returns:
        Dotted key -> value; lists and null as JSON.
    """
    values, defaults = flat(json.loads(resolved_json(config))), flat(defaults_for(config))
    changed = [key for key in values if defaults.get(key) != values[key] and key != "name"]
    shown = {}
    for key in dict.fromkeys((*_ALWAYS_SHOWN, *changed)):
        value = json.loads(values[key])
        shown[key] = value if isinstance(value, bool | int | float | str) else values[key]
    return shown


def add_final_figures(events: EventLog, facts: RunFacts, figures: Path) -> None:
    """Adds a finished run's figures as images, and its supervised baseline as a scalar.

    Args:
        events: of the run.
        facts: of the run.
        figures: the folder of its PNGs.
    """
    epoch = int(facts.rows[-1]["epoch"])
    images = {
        name: (figures / f"{name}.png").read_bytes()
        for name in _FIGURES
        if (figures / f"{name}.png").exists()
    }

    def write() -> None:
        for name, png in images.items():
            tf.summary.image(f"figures/{name}", tf.io.decode_png(png, channels=3)[None])
        if facts.supervised is not None:
            text = "Top-1 of the same network trained from scratch on the probe's labels."
            tf.summary.scalar("accuracy/supervised", facts.supervised.fraction, description=text)

    events.add(epoch, write)


def write_projector_files(logs: Path, analysis: RepresentationAnalysis) -> None:
    """Writes representations, classes and a sprite of thumbnails for TensorBoard's projector.

    Args:
        logs: the folder of the run's events.
        analysis: images and their representations.

    Raises:
        OSError: if the disk refuses.
    """
    write_atomically(
        logs / "representations.tsv",
        "".join("\t".join(f"{x:.5g}" for x in row) + "\n" for row in analysis.trained),
    )
    if analysis.labels is None:
        names = ["image"] * len(analysis.trained)
    else:
        names = [analysis.class_names[label] for label in analysis.labels]
    write_atomically(logs / "classes.tsv", "".join(" ".join(name.split()) + "\n" for name in names))
    side = math.ceil(math.sqrt(len(names)))
    sprite = np.full((side * _THUMBNAIL, side * _THUMBNAIL, 3), 255, np.uint8)
    for index in range(len(names)):
        y, x = (_THUMBNAIL * cell for cell in divmod(index, side))
        sprite[y : y + _THUMBNAIL, x : x + _THUMBNAIL] = resize_and_center_crop(
            false_color(analysis.images[index]), _THUMBNAIL
        )
    png = io.BytesIO()
    Image.fromarray(sprite).save(png, format="png")
    write_atomically(logs / "sprite.png", png.getvalue())
    write_atomically(logs / "projector_config.pbtxt", _PROJECTOR)


def _first_line(error: Exception) -> str:
    """Returns an error in one line, without TensorFlow's name of the operation."""
    return re.sub(r"^\{\{.*?\}\} ", "", str(error).splitlines()[0])
