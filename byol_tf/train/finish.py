"""Outputs of a finished run: result, supervised baseline, curves, exported encoder and report."""

import dataclasses
import hashlib
import json
import logging
import shlex
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from byol_tf.command_line import program
from byol_tf.config.schedule import Schedule, method_name
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.evaluate.finetune import SUPERVISED_RATES, TuneRecipe, tune_protocol
from byol_tf.export.model_card import write_card
from byol_tf.export.saved_model import export_encoder
from byol_tf.logs import activity
from byol_tf.models.byol import BYOL
from byol_tf.report.representations import analyze_representations
from byol_tf.report.writing import write_report
from byol_tf.runs.accuracy import Accuracy, chance
from byol_tf.runs.data import probe_images
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.plots import curves_figure
from byol_tf.runs.summary import read_facts, verdict
from byol_tf.train.callbacks.throughput import Throughput
from byol_tf.train.tensorboard import EventLog, add_final_figures, write_projector_files
from pipelines.sources import Source, SourceError

logger = logging.getLogger(__name__)


def supervised_accuracy(config: Config, inference: keras.Model, source: Source) -> float | None:
    """Trains the same network from scratch on the probe's labels; returns its top-1 accuracy.

    Returns:
        A fraction, or None where there are no labels or the config doesn't ask for it.
    """
    images = probe_images(config, source) if config.probe.supervised else None
    if images is None:
        return None
    # TensorFlow would warn that each training is traced again, as it has to be.
    tf.get_logger().setLevel("ERROR")
    recipe = TuneRecipe(from_scratch=True, rates=SUPERVISED_RATES, widen=True, seeds=1)
    with activity("training the same network from scratch on the probe's labels", logger):
        return tune_protocol(inference, *images, recipe, config.seed, config.views.size)["top1"]


def run_result(
    config: Config,
    folder: RunFolder,
    model: BYOL,
    schedule: Schedule,
    source: Source,
    throughput: Throughput,
    rows: list[dict[str, float]],
    steps: int,
    exported: int,
    supervised: float | None,
) -> dict[str, Any]:
    """Returns the content of `result.json`.

    Args:
        config: of the run.
        folder: of the run.
        model: of the exported epoch.
        schedule: of the run.
        source: the images that it was trained on.
        throughput: of the complete run.
        rows: of its history, that of the untrained network first.
        steps: number of steps that changed the weights.
        exported: the epoch whose encoder is exported; losses, measures and accuracies are its.
        supervised: see `supervised_accuracy`.
    """
    untrained, row = rows[0], next(row for row in rows if row["epoch"] == exported)
    images = probe_images(config, source)
    test = None if images is None else images[1]
    accuracies = {
        "probe_accuracy": row.get("probe_accuracy"),
        "untrained_probe_accuracy": untrained.get("probe_accuracy"),
        "knn_accuracy": row.get("knn_accuracy"),
        "untrained_knn_accuracy": untrained.get("knn_accuracy"),
        "supervised_accuracy": supervised,
    }
    return {
        "name": config.name,
        "system": method_name(config),
        "starting_weights": config.encoder.weights,
        "teacher": config.objective.teacher,
        "run_dir": str(folder.root),
        "export_dir": str(folder.saved_model),
        "epochs": rows[-1]["epoch"],
        "exported_epoch": exported,
        "steps": steps,
        "seconds": round(throughput.seconds, 3),
        "images_per_second": round(throughput.images_per_second, 3),
        "skipped_steps": model.skipped_steps,
        "loss": row["loss"],
        **accuracies,
        "intervals": {
            name: Accuracy(value, len(test)).interval
            for name, value in accuracies.items()
            if test is not None and value is not None
        },
        "probe_split": config.probe.split,
        "test_images": None if test is None else len(test),
        "chance": None if test is None else chance(np.asarray(test.labels)),
        "projection_std": row["projection_std"],
        "projection_cosine": row["projection_cosine"],
        "effective_rank": row["effective_rank"],
        "pretrain_images": len(source.pretrain),
        "leaked_test_images": source.leaked,
        "schedule": dataclasses.asdict(schedule),
        "weights_digest": weights_digest(model),
    }


def write_artifacts(
    config: Config,
    folder: RunFolder,
    inference: keras.Model,
    rows: list[dict[str, float]],
    result: dict[str, Any],
) -> None:
    """Writes curves, encoder, model card, and last `result.json`, which marks the run as finished.

    Adds the `verdict` to the result.

    Args:
        config: of the run.
        folder: of the run.
        inference: the model to export.
        rows: of its history.
        result: from `run_result`.

    Raises:
        OSError: if the disk refuses.
        tf.errors.OpError: if TensorFlow can't write the SavedModel.
        RunFolderError, ConfigError: if files of the run are missing or were changed.
    """
    facts = dataclasses.replace(
        read_facts(folder), result=result, test_images=result["test_images"]
    )
    result["verdict"] = verdict(facts)
    with activity("exporting the encoder"):
        curves_figure(
            folder.figures / "curves.png",
            rows,
            facts.title,
            facts.start,
            facts.test_images,
            facts.chance,
            facts.exported_epoch,
        )
        export_encoder(inference, folder.export, config.data.range)
    write_card(facts, folder.export)
    write_atomically(folder.result, json.dumps(result, indent=2) + "\n")


def write_final_report(
    config: Config, folder: RunFolder, inference: keras.Model, source: Source, events: EventLog
) -> None:
    """Writes report, the figures that need the encoder, and TensorBoard's last events.

    A failure is logged and ends nothing: all that was trained is saved by then.
    """
    try:
        with activity("writing the report", logger):
            facts, analysis = read_facts(folder), analyze_representations(config, inference, source)
            write_report(facts, folder, analysis)
            write_projector_files(folder.logs, analysis)
            add_final_figures(events, facts, folder.figures)
    except (OSError, tf.errors.OpError, SourceError, RunFolderError, ConfigError) as error:
        logger.warning(
            "report not written: %s. To write it: %s --run %s",
            str(error).partition("\n")[0],
            program("report"),
            shlex.quote(str(folder.root)),
        )


def weights_digest(model: BYOL) -> str:
    """Returns the SHA-256 of the online network's weights and moving statistics, in hexadecimal."""
    digest = hashlib.sha256()
    for part in model.networks.values():
        for array in part.get_weights():
            digest.update(array.tobytes())
    return digest.hexdigest()
