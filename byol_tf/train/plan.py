"""What a config comes to: images, steps, rates, sizes and files, found out before anything is
trained or written."""

import shutil

from byol_tf.config.diff import recipe_differences
from byol_tf.config.schedule import Schedule
from byol_tf.config.schema import Config
from byol_tf.models.from_config import Sizes
from byol_tf.runs.folder import RunFolder
from byol_tf.train.dry_run import ThroughputEstimate
from pipelines.sources import SourceInfo

_SHOWN = 4
"""Keys that a plan names of those that differ from the recipe."""


def plan_lines(
    config: Config, source: SourceInfo, schedule: Schedule, sizes: Sizes, folder: RunFolder
) -> list[tuple[str, str]]:
    """(subject, what is going to be) for people, in reading order.

    Args:
        config: of the run.
        source: its images.
        schedule: its steps.
        sizes: of its networks.
        folder: where it will be written.
    """
    counts = source.counts
    labelled = (
        f"{counts['train']:,} train, {counts['test']:,} test, {source.classes} classes"
        if counts["train"]
        else "none, so no probe"
    )
    held = (
        f"in memory, {source.bytes_in_memory / 1e6:,.0f} MB"
        if source.in_memory
        else "read again each epoch"
    )
    shape = (
        "of their own sizes"
        if source.image_shape is None
        else "{} x {}".format(*source.image_shape[:2])
    )
    return [
        ("recipe", _recipe_text(config)),
        ("images", f"{config.data.source}: {counts['pretrain']:,} to learn from, {shape}, {held}"),
        ("labels", labelled),
        *(("", note) for note in source.notes),
        (
            "views",
            f"{config.views.size} x {config.views.size}, preset {config.views.preset}, by "
            f"{config.views.engine.replace('_', '-')}",
        ),
        (
            "network",
            ", ".join(f"{name} {number:,}" for name, number in sizes.parameters.items())
            + " parameters",
        ),
        ("normalised", _normalization_text(config)),
        *(
            [("starts from", f"encoder: {config.encoder.weights}")]
            if config.encoder.weights
            else []
        ),
        (
            "training",
            f"{config.training.epochs} epochs of {schedule.steps_per_epoch:,} steps of "
            f"{config.training.batch_size} images: "
            f"{schedule.total_steps:,} steps",
        ),
        (
            "optimizer",
            f"{config.optimizer.name}, {_rate_text(config, schedule)}, weight decay "
            f"{config.optimizer.weight_decay:g}",
        ),
        ("objective", _objective_text(config)),
        ("tau", _tau_text(config)),
        (
            "device",
            f"{config.devices.strategy}, {config.devices.precision}, jit "
            f"{config.devices.jit_compile}",
        ),
        (
            "run folder",
            f"{folder.root}: config, history, figures, TensorBoard logs, checkpoints (newest "
            f"{config.run.keep_checkpoints}), encoder",
        ),
        *_disk_lines(config, bool(counts["train"] and counts["test"]), sizes, folder),
    ]


def _recipe_text(config: Config) -> str:
    name, differing = recipe_differences(config)
    if not differing:
        return f"{name} as it is"
    shown = ", ".join(
        f"{key} {_short(here)} (there {_short(there)})" for key, there, here in differing[:_SHOWN]
    )
    return f"{name} but for {shown}" + (
        f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    )


def _short(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:23]}…"


def _disk_lines(
    config: Config, probed: bool, sizes: Sizes, folder: RunFolder
) -> list[tuple[str, str]]:
    """What checkpoints and encoder take at most, beside what is free; with a warning where that is
    less than is still to be written."""
    most = (
        config.run.keep_checkpoints + probed + 1
    )  # the best by probe stays too, and one is being written
    needed = most * sizes.checkpoint + 2 * sizes.encoder  # which is exported in two formats
    text = (
        f"at most {_megabytes(needed)}, in checkpoints of {_megabytes(sizes.checkpoint)} and an "
        f"encoder of {_megabytes(sizes.encoder)}"
    )
    place = next(
        path for path in (folder.root.absolute(), *folder.root.absolute().parents) if path.is_dir()
    )
    try:
        free = shutil.disk_usage(place).free
        there = sum(
            path.stat().st_size
            for part in (folder.checkpoints, folder.export)
            for path in part.rglob("*")
            if path.is_file()
        )
    except OSError:  # a part of the plan that no run needs
        return [("disk", text)]
    lines = [("disk", f"{text}; {_megabytes(free)} are free there")]
    if free + there < needed:
        lines.append(
            (
                "warning",
                f"the run folder's disk may fill up: {_megabytes(needed - there)} to be written, "
                f"{_megabytes(free)} free in {place}. "
                "run.keep_checkpoints=2 takes the least; run.root names another place",
            )
        )
    return lines


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


_DEVICES = (1, 8, 512)
"""Numbers of devices for which a plan says what feeds them."""


def throughput_lines(
    rates: ThroughputEstimate, images: int, less_work: str
) -> list[tuple[str, str]]:
    """(subject, what was measured) for people, with a warning where the input is the slower one.

    Args:
        rates: what was measured.
        images: that the run has still to show, epoch by epoch.
        less_work: what could be changed for less to do for each image, in words; may be empty.
    """
    moved = rates.step * rates.bytes_per_image / 1e6
    lines = [
        (
            "input",
            f"{rates.input:,.0f} images/s alone, on {rates.cores} cores; "
            f"{rates.bytes_per_image / 1e3:,.1f} kB an image to the step",
        ),
        ("step", f"{rates.step:,.0f} images/s in batches of {rates.batch}"),
        (
            "to feed",
            "; ".join(
                f"{n} like it: {_cores(n * rates.cores_needed)}, {n * moved:,.0f} MB/s"
                for n in _DEVICES
            ),
        ),
        ("time", _time_text(rates, images)),
    ]
    if rates.input < rates.step:
        less = f", or less to do for each image: {less_work}" if less_work else ""
        lines.append(
            (
                "warning",
                "the input is slower than the step, which waits "
                f"{1.0 - rates.input / rates.step:.0%} of the time. It would take "
                f"{rates.cores_needed:,.0f} cores like these{less}",
            )
        )
    return lines


def _cores(number: float) -> str:
    return f"{number:,.0f} cores" if number >= 10 else f"{number:.2g} cores"


def _time_text(rates: ThroughputEstimate, images: int) -> str:
    slowest, fastest = rates.slowest_and_fastest
    seconds, low, high = images / rates.together, images / fastest, images / slowest
    units = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
    unit, length = next(each for each in units if seconds >= 2 * each[1] or each[1] == 1)
    timings = min(len(rates.inputs), len(rates.steps))
    spread = (
        f" ({low / length:,.1f} to {high / length:,.1f}, by {timings} timings)"
        if timings > 1
        else ""
    )
    return (
        f"about {seconds / length:,.1f} {unit} of steps to go{spread}, at {rates.together:,.0f} "
        "images/s"
    )


def _tau_text(config: Config) -> str:
    tau = config.tau
    if config.objective.target != "ema":
        return "none, the online network is its own target"
    if tau.schedule == "constant":
        return f"{tau.base:g} throughout"
    if tau.schedule == "drop":
        return f"{tau.base:g}, and 0 after {tau.resolved_drop_at:.0%} of the steps"
    return f"{tau.base:g} to {tau.resolved_end:g}, {tau.schedule.replace('_', ' ')}"


def _objective_text(config: Config) -> str:
    objective = config.objective
    directions = {
        "symmetric": "both directions",
        "asymmetric": "one direction",
        "asymmetric_2x": "one direction, two draws",
    }[objective.symmetrization]
    words = [
        objective.similarity.replace("_", "-"),
        directions,
        f"target {objective.target.replace('_', ' ')}",
    ]
    if objective.negatives:
        words.append(f"negatives {objective.negatives:g} at temperature {objective.temperature:g}")
    if objective.weight != 1.0:
        words.append(f"weight {objective.weight:g}")
    return ", ".join(words)


def _rate_text(config: Config, schedule: Schedule) -> str:
    optimizer, predictor = config.optimizer, config.predictor
    rate = f"learning rate {schedule.peak_rate:g}, {optimizer.schedule}"
    if schedule.warmup_steps:
        rate += f" after {schedule.warmup_steps:,} warm-up steps"
    if predictor.learning_rate_multiplier != 1.0 or predictor.schedule not in (
        None,
        optimizer.schedule,
    ):
        rate += (
            f" (predictor {schedule.peak_rate * predictor.learning_rate_multiplier:g}, "
            f"{predictor.schedule or optimizer.schedule})"
        )
    return rate


def _normalization_text(config: Config) -> str:
    parts = {"encoder": config.encoder.normalization, "projector": config.projector.normalization}
    if config.predictor.kind != "none":
        parts["predictor"] = config.predictor.normalization
    if len(set(parts.values())) == 1:
        return config.encoder.normalization
    return ", ".join(f"{part} {kind}" for part, kind in parts.items())
