"""Callbacks that measure collapse after each epoch and report it."""

import logging
from typing import Any

import keras

from byol_tf.config.schema import Config
from byol_tf.errors import Collapsed
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import effective_rank
from byol_tf.models.losses import mean_cosine, projection_std
from byol_tf.runs.collapse import detect_collapse, likely_cause
from pipelines.sources import Images

logger = logging.getLogger(__name__)


class Collapse(keras.callbacks.Callback):
    """Adds three measures of collapse to each epoch's logs; changes nothing in training.

    `projection_std`: standard deviation of the normalised projections of different images times
    sqrt(d): near 1 when they are scattered over the sphere, 0 when they have collapsed (SimSiam
    report, section IV.A). `projection_cosine`: mean cosine between projections of different images:
    near 0 when scattered, 1 when collapsed. `effective_rank` of the representations: the number of
    directions that they use.

    Args:
        inference: the inference model around the online encoder (see `models/inference.py`).
        projector: the online projector.
        images: a sample of a few hundred (see `runs.data.sample_pretrain_images`).
    """

    def __init__(self, inference: keras.Model, projector: keras.Model, images: Images):
        super().__init__()
        self.inference, self.projector, self.images = inference, projector, images

    def measure(self) -> dict[str, float]:
        """Returns the three measures of the network as it is."""
        representations = embed(self.inference, self.images)
        projections = self.projector(representations, training=False)
        return {
            "projection_std": float(projection_std(projections)),
            "projection_cosine": float(mean_cosine(projections)),
            "effective_rank": effective_rank(representations),
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the measures to `logs`."""
        if logs is not None:
            logs.update(self.measure())


class CollapseAlarm(keras.callbacks.Callback):
    """Logs a collapse once, or stops the run.

    It reads the rows that the callbacks before it have written, so it comes after them; it also
    comes after `Checkpoint`, so that the epoch is saved.

    Args:
        config: of the run, in which the likely cause is looked for.
        rows: of the run so far, that of the untrained network first. The list grows with the
            run's history.
        steps_per_epoch: steps of an epoch, from which the message derives the steps.

    Raises:
        Collapsed: at an epoch's end, if `monitor.on_collapse` is `stop`.
    """

    def __init__(self, config: Config, rows: list[dict[str, float]], steps_per_epoch: int):
        super().__init__()
        self.config, self.rows, self.steps_per_epoch = config, rows, steps_per_epoch
        self._reported = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reports a collapse that the last row shows."""
        untrained, *trained = self.rows
        collapses = [detect_collapse(row, untrained, self.config.objective) for row in trained]
        if collapses[-1] is None or self._reported:
            return
        self._reported = True
        healthy_epochs = [
            int(row["epoch"])
            for row, collapse in zip(trained, collapses, strict=True)
            if collapse is None
        ]
        last_healthy = max(healthy_epochs, default=0)
        cause, remedy = likely_cause(self.config)
        text = (
            f"collapse: {collapses[-1]}, since epoch {last_healthy + 1} (steps "
            f"{last_healthy * self.steps_per_epoch + 1:,} to "
            f"{(last_healthy + 1) * self.steps_per_epoch:,}). Likely cause here: {cause}. To try: "
            f"{remedy}. A collapsed network doesn't recover by itself: restart with that change "
            "(--fresh). All causes: docs/collapse.md in the source of byol_tf"
        )
        if self.config.monitor.on_collapse == "stop":
            raise Collapsed(text)
        logger.warning("%s", text)
