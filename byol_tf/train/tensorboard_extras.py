"""What TensorBoard shows of a run beside its scalars: config, hyper-parameters, figures, and the
projector.

The functions that begin with `show` call `tf.summary` and are to be called through an `EventLog`.
"""

import json
import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams

from byol_tf.config.diff import defaults_for, flat
from byol_tf.config.loading import resolved_json
from byol_tf.config.schema import Config
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.files import write_atomically
from byol_tf.runs.summary import RunFacts
from byol_tf.train.tensorboard import EventLog
from pipelines.sources import resize_and_center_crop

_ALWAYS = (
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
"""Hyper-parameters of every run, at their defaults too: what studies vary, so that the dashboard
has no gaps there."""
_THUMBNAIL = 48  # pixels; 1,000 make a sprite of 1,536, and TensorBoard takes up to 8,192


def show_config(config: Config, run: str) -> None:
    """Writes the config as text, and the run's hyper-parameters for the HParams dashboard.

    Args:
        config: of the run.
        run: name of its folder. Each run is a trial of its own, so seeds stand beside each other.
    """
    tf.summary.text("config", f"```\n{resolved_json(config)}\n```")
    hparams.hparams(hyperparameters(config), trial_id=run)


def hyperparameters(config: Config) -> dict[str, bool | float | str]:
    """Dotted key -> value, of the keys that studies vary and of those that differ from their
    defaults; lists and null as JSON."""
    here, default = flat(json.loads(resolved_json(config))), flat(defaults_for(config))
    keys = dict.fromkeys(
        (
            *_ALWAYS,
            *(key for key, value in here.items() if default.get(key) != value and key != "name"),
        )
    )
    found = {}
    for key in keys:
        value = json.loads(here[key])
        found[key] = value if isinstance(value, bool | int | float | str) else here[key]
    return found


def show_end(events: EventLog, facts: RunFacts, figures: Path) -> None:
    """Writes a finished run's figures as pictures, and its supervised baseline as a scalar.

    Args:
        events: the log.
        facts: of the run.
        figures: the folder of its PNGs.
    """
    epoch = int(facts.rows[-1]["epoch"])
    names = ("curves", "collapse", "neighbours", "map", "confusion")
    pictures = {
        name: (figures / f"{name}.png").read_bytes()
        for name in names
        if (figures / f"{name}.png").exists()
    }

    def write() -> None:
        for name, png in pictures.items():
            tf.summary.image(f"figures/{name}", tf.io.decode_png(png, channels=3)[None])
        if facts.supervised is not None:
            text = "Top-1 of the same network trained from scratch on the probe's labels."
            tf.summary.scalar("accuracy/supervised", facts.supervised, description=text)

    events.add(epoch, write)


def write_projector_files(logs: Path, seen: RepresentationAnalysis) -> None:
    """Writes what TensorBoard's projector shows: representations, classes and a sprite of
    thumbnails. `OSError` if the disk refuses.

    Args:
        logs: the folder of the run's events.
        seen: images and their representations.
    """
    write_atomically(
        logs / "representations.tsv",
        "".join("\t".join(f"{x:.5g}" for x in row) + "\n" for row in seen.trained),
    )
    names = (
        ["image"] * len(seen.trained)
        if seen.labels is None
        else [seen.class_names[label] for label in seen.labels]
    )
    write_atomically(logs / "classes.tsv", "".join(" ".join(name.split()) + "\n" for name in names))
    side = math.ceil(math.sqrt(len(names)))
    sprite = np.full((side * _THUMBNAIL, side * _THUMBNAIL, 3), 255, np.uint8)
    for number in range(len(names)):
        y, x = (_THUMBNAIL * place for place in divmod(number, side))
        sprite[y : y + _THUMBNAIL, x : x + _THUMBNAIL] = resize_and_center_crop(
            seen.images[number], _THUMBNAIL
        )
    Image.fromarray(sprite).save(logs / "sprite.png")
    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="representations",
        tensor_path="representations.tsv",
        metadata_path="classes.tsv",
    )
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([_THUMBNAIL, _THUMBNAIL])
    projector.visualize_embeddings(str(logs), config)
