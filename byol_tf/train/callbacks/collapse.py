"""Collapse that the loss hides: what the online projections of a fixed set of images look like."""

from collections.abc import Callable

import keras

from byol_tf.config.schema import Config
from byol_tf.errors import Collapsed
from byol_tf.evaluate.features import embed
from byol_tf.evaluate.metrics import effective_rank
from byol_tf.models.losses import mean_cosine, projection_std
from byol_tf.runs.collapse import likely_cause, sign_of_collapse
from pipelines.sources import Images


class Collapse(keras.callbacks.Callback):
    """Puts three measures of the projections of different images into each epoch's logs. Changes
    nothing that is learned.

    `projection_std`: standard deviation of the normalised projections times sqrt(d): near 1 when
    scattered over the sphere, 0 when collapsed (SimSiam report, section IV.A). `projection_cosine`:
    mean cosine between different images: near 0, and 1. `effective_rank`: of the representations,
    how many directions they use.

    Args:
        inference: the inference model around the online encoder (see `models/inference.py`).
        projector: the online projector.
        images: some hundred images, without labels.
    """

    def __init__(self, inference: keras.Model, projector: keras.Model, images: Images):
        super().__init__()
        self.inference, self.projector, self.images = inference, projector, images

    def measure(self) -> dict[str, float]:
        """The three measures of the network as it is now."""
        representations = embed(self.inference, self.images)
        projections = self.projector(representations, training=False)
        return {
            "projection_std": float(projection_std(projections)),
            "projection_cosine": float(mean_cosine(projections)),
            "effective_rank": effective_rank(representations),
        }

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.measure())


class CollapseAlarm(keras.callbacks.Callback):
    """Looks at each epoch's measures, once `Collapse` and `History` have put them down; says it
    once, or stops the run.

    Args:
        config: of the run, in which the cause is looked for.
        rows: of the run so far, as `History` keeps them, that of the untrained network first.
        steps_per_epoch: for the step since when.
        say: prints a line for people.

    Raises:
        Collapsed: at an epoch's end, if `monitor.on_collapse` is `stop`. `Checkpoint` comes before
            this callback, so the epoch is saved.
    """

    def __init__(
        self,
        config: Config,
        rows: list[dict],
        steps_per_epoch: int,
        say: Callable[[str], None] = print,
    ):
        super().__init__()
        self.config, self.rows, self.steps_per_epoch, self.say = config, rows, steps_per_epoch, say
        self.said = False

    def on_epoch_end(self, epoch, logs=None):
        untrained, *trained = self.rows
        signs = [sign_of_collapse(row, untrained, self.config.objective) for row in trained]
        if signs[-1] is None or self.said:
            return
        self.said = True
        healthy = [row["epoch"] for row, sign in zip(trained, signs, strict=True) if sign is None]
        last = max(healthy, default=0)
        cause, remedy = likely_cause(self.config)
        text = (
            f"collapse: {signs[-1]}, since epoch {last + 1} (steps "
            f"{last * self.steps_per_epoch + 1:,} to "
            f"{(last + 1) * self.steps_per_epoch:,}). Likely cause here: {cause}. To try: "
            f"{remedy}. A collapsed network "
            "doesn't come back by itself: begin anew with that (--fresh). All causes: "
            "docs/collapse.md in the source of byol_tf"
        )
        if self.config.monitor.on_collapse == "stop":
            raise Collapsed(text)
        self.say(f"warning: {text}")
