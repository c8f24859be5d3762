"""What a config comes to: images, steps, rates, sizes and files, found out before anything is trained or written."""

from dataclasses import dataclass

from byol_tf.config import Config
from byol_tf.config_errors import ConfigError
from byol_tf.run_folder import RunFolder
from pipelines.sources import SourcePlan


@dataclass(frozen=True)
class Schedule:
    """Steps and rates of a run.

    Attributes:
        steps_per_epoch: full batches in the pre-training images.
        total_steps: optimizer steps of the run.
        warmup_steps: of which the learning rate rises.
        peak_rate: the effective learning rate: base rate x batch / reference batch.
    """

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    peak_rate: float


def schedule_of(config: Config, images: int) -> Schedule:
    """The steps and rates for so many pre-training images. `ConfigError` if they don't fill a batch."""
    batch = config.training.batch_size
    steps_per_epoch = images // batch
    if steps_per_epoch == 0:
        raise ConfigError([f"training.batch_size: expected at most the number of pre-training images, {images}; received {batch}"])
    optimizer = config.optimizer
    return Schedule(
        steps_per_epoch=steps_per_epoch,
        total_steps=steps_per_epoch * config.training.epochs,
        warmup_steps=round(optimizer.warmup_epochs * steps_per_epoch),
        peak_rate=optimizer.base_learning_rate * (batch / optimizer.reference_batch if optimizer.reference_batch else 1.0),
    )


def plan_lines(
    config: Config, source: SourcePlan, schedule: Schedule, parameters: dict[str, int], folder: RunFolder
) -> list[tuple[str, str]]:
    """(subject, what is going to be) for people, in reading order.

    Args:
        config: of the run.
        source: its images.
        schedule: its steps.
        parameters: name -> number of trainable parameters, for encoder, projector and predictor.
        folder: where it will be written.
    """
    counts = source.counts
    labelled = f"{counts['train']:,} train, {counts['test']:,} test, {source.classes} classes" if counts["train"] else "none, so no probe"
    held = f"in memory, {source.bytes_in_memory / 1e6:,.0f} MB" if source.in_memory else "read again each epoch"
    shape = "of their own sizes" if source.image_shape is None else "{} x {}".format(*source.image_shape[:2])
    rate = f"{schedule.peak_rate:g}, {config.optimizer.schedule}"
    if schedule.warmup_steps:
        rate += f" after {schedule.warmup_steps:,} warm-up steps"
    lines = [
        ("images", f"{config.data.source}: {counts['pretrain']:,} to learn from, {shape}, {held}"),
        ("labels", labelled),
        *(("", note) for note in source.notes),
        ("views", f"{config.views.size} x {config.views.size}, preset {config.views.preset}"),
        ("network", ", ".join(f"{name} {number:,}" for name, number in parameters.items()) + " parameters"),
        (
            "training",
            f"{config.training.epochs} epochs of {schedule.steps_per_epoch:,} steps of {config.training.batch_size} images: "
            f"{schedule.total_steps:,} steps",
        ),
        ("optimizer", f"{config.optimizer.name}, learning rate {rate}, weight decay {config.optimizer.weight_decay:g}"),
        ("tau", _tau_text(config)),
        ("device", f"{config.devices.strategy}, {config.devices.precision}"),
        (
            "run folder",
            f"{folder.root}: config, history, figures, TensorBoard logs, checkpoints (newest {config.run.keep_checkpoints}), encoder",
        ),
    ]
    return lines


def _tau_text(config: Config) -> str:
    tau = config.tau
    if tau.schedule == "constant":
        return f"{tau.base:g} throughout"
    if tau.schedule == "drop":
        return f"{tau.base:g}, and 0 after {0.25 if tau.drop_at is None else tau.drop_at:.0%} of the steps"
    end = tau.end if tau.end is not None else 1.0 if tau.schedule == "cosine" else 0.5
    return f"{tau.base:g} to {end:g}, {tau.schedule.replace('_', ' ')}"
