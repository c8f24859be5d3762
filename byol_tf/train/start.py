"""The state from which a process trains: the newest checkpoint's, or an initialized model's."""

import logging
from typing import Any, NamedTuple

import numpy as np

from byol_tf.config.loading import absolute_paths, resolved_json
from byol_tf.config.schedule import Schedule
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError
from byol_tf.models.byol import BYOL
from byol_tf.runs.checkpoints import LoadedCheckpoint, recover
from byol_tf.runs.data import train_batches
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.starting_weights import Weights, start_from, starting_weights
from byol_tf.train.callbacks.checkpoint import model_arrays, restore_model
from byol_tf.train.data import save_manifest
from byol_tf.train.multi_worker import Workers
from byol_tf.train.teacher import Teacher
from pipelines.sources import Source

logger = logging.getLogger(__name__)

_DATA_INIT_IMAGES = 256  # enough for each channel's mean and deviation, and little memory


class ResumePoint(NamedTuple):
    """The position at which a process starts to train.

    Attributes:
        epoch: completed epochs.
        step: completed steps of the next epoch, at most all of them.
        state: of the callbacks, as saved in the checkpoint.
    """

    epoch: int
    step: int
    state: dict[str, Any]


def initialize_or_resume(
    config: Config,
    folder: RunFolder,
    model: BYOL,
    source: Source,
    schedule: Schedule,
    weights: Weights | None,
    command: list[str],
    teacher: Teacher | None = None,
    precision: str = "float32",
) -> ResumePoint:
    """Restores the newest checkpoint or initializes the model; starts the folder's files.

    Args:
        config: of the run.
        folder: of the run, locked by this process.
        model: of the run, compiled.
        source: the images that the run trains on.
        schedule: of the run.
        weights: from `starting_weights`, for a run without a valid checkpoint; None where the
            config names no file, or to read it only if it is needed.
        command: the command line, kept in `environment.json`.
        teacher: of the run, or None.
        precision: of the networks' computation.

    Returns:
        The position of the checkpoint; without one, that before the first step.

    Raises:
        RunFolderError: if the folder can't be read or written, or its run has lost its checkpoints,
            has no valid one, one of another model, or used other images or another teacher.
        ConfigError: if the encoder can't start from `encoder.weights`.
    """
    images = source.fingerprint
    try:
        checkpoint = recover(folder.checkpoints, folder.trained_epochs())
    except OSError as error:  # the newest may be valid, so no older one is used
        raise RunFolderError(
            f"{folder.checkpoints}: expected checkpoints that can be read; received {error}"
        ) from error
    if checkpoint is not None:
        if checkpoint.state.get("images", images) != images:
            raise RunFolderError(
                f"{folder.root}: this run was started with other images than data.source has "
                "now. Restore those, or start a new run in another folder"
            )
        if teacher is not None and checkpoint.state.get("teacher") != teacher.digest:
            raise RunFolderError(
                f"{folder.root}: this run was started with another teacher than objective.teacher "
                f"has now, {teacher.path}. Restore that one, or start a new run in another folder"
            )
        _restore(folder, model, checkpoint)
    began_before = folder.environment.exists()
    for change in folder.begin(
        resolved_json(absolute_paths(config)),
        command,
        images,
        source.skipped,
        checkpoint is not None,
        precision,
    ):
        logger.info("changed: %s", change)
    save_manifest(source, folder, resumed=checkpoint is not None)
    source.save_scan()
    if checkpoint is None:
        if began_before:
            logger.info("no checkpoint yet: starting with the first step")
        _initialize_from_file(config, model, weights)
        _initialize_from_data(config, model, source)
        return ResumePoint(0, 0, {"rows": [], "seconds": 0.0, "steps": 0})
    within_epoch = (
        f", step {checkpoint.step} of {schedule.steps_per_epoch} in the next"
        if checkpoint.step
        else ""
    )
    logger.info(
        "resuming after epoch %d of %d%s", checkpoint.epoch, config.training.epochs, within_epoch
    )
    return ResumePoint(checkpoint.epoch, checkpoint.step, checkpoint.state)


def _restore(folder: RunFolder, model: BYOL, checkpoint: LoadedCheckpoint) -> None:
    try:
        restore_model(model, checkpoint.arrays)
    except ValueError as error:
        raise RunFolderError(
            f"{folder.checkpoints}: expected those of the model that config.json describes; "
            f"{error}. Use the config and the version of byol_tf that the run was started with "
            "(environment.json), or start a new run in another folder"
        ) from error


def _initialize_from_file(config: Config, model: BYOL, weights: Weights | None) -> None:
    """Sets the encoder's weights from `encoder.weights`, if the config names a file."""
    path = config.encoder.weights
    if path is None:
        return
    if weights is None:  # there were checkpoints, and all of them are damaged
        weights = starting_weights(path, model.encoder, config)
    start_from(model, weights)
    logger.info("the encoder starts from %s", path)


def _initialize_from_data(config: Config, model: BYOL, source: Source) -> None:
    """Sets scales and offsets of `data_init` layers from the first views of the first batch."""
    if "data_init" not in (
        config.encoder.normalization,
        config.projector.normalization,
        config.predictor.normalization,
    ):
        return
    batch = next(iter(train_batches(config, source.pretrain)))
    views = batch[0] if model.views is None else model.views[0](batch[0], batch[-1])
    views = views[:_DATA_INIT_IMAGES]
    model.initialize_from_data(views)
    logger.info("scales and offsets set from %d views", len(views))


def broadcast_state(model: BYOL, workers: Workers, start: ResumePoint | None) -> ResumePoint:
    """Gives every worker the chief's model and position, so that only the chief needs a folder.

    Args:
        model: of the run; on other workers its variables are overwritten.
        workers: of the run; each of them has to call this.
        start: of the chief; None on other workers.

    Returns:
        The chief's position. On other workers its state holds only the running means.
    """
    names = list(model.epoch_means)
    own = start or ResumePoint(0, 0, {})
    epoch, step = (workers.gather(number)[0] for number in (own.epoch, own.step))
    restore_model(model, workers.broadcast(model_arrays(model)))
    means = own.state.get("means") or dict.fromkeys(names, (0.0, 0.0))
    shared = workers.broadcast({"means": np.array([means[name] for name in names], np.float32)})
    return ResumePoint(
        epoch,
        step,
        own.state | {"means": dict(zip(names, shared["means"].tolist(), strict=True))},
    )
