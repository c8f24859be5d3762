"""The training plan of a config: images, steps, learning rates, sizes and disk use."""

import shutil
from dataclasses import dataclass

import psutil

from byol_tf.config.diff import recipe_differences
from byol_tf.config.schedule import Schedule, training_schedule
from byol_tf.config.schema import Config
from byol_tf.constants import ENCODERS
from byol_tf.devices import has_fast_bfloat16, run_precision
from byol_tf.errors import ConfigError
from byol_tf.logs import counted, wrapped
from byol_tf.models.from_config import GivenEncoder, Sizes, measure_sizes
from byol_tf.models.layer_decay import GROUPS
from byol_tf.runs.best_epoch import check_metric, compares_epochs
from byol_tf.runs.checkpoints import list_checkpoints, position_of
from byol_tf.runs.data import check_view_engine
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.sources import source_options
from byol_tf.train.data import saved_manifest
from byol_tf.train.teacher import load_teacher
from pipelines.memory import memory_limit
from pipelines.registry import SOURCES
from pipelines.sources import GivenImages, SourceInfo, plan_source

_KEYS_SHOWN = 4
"""Keys that a plan names of those that differ from the recipe."""

_CLASSES_SHOWN = 10
_FEW_PHOTOS = 1_000
"""Own photos below which a pretrained encoder is the better choice (docs/choosing.md)."""


@dataclass(frozen=True)
class Plan:
    """The plan of a run. Its text, `str(plan)`, is what the command prints.

    Attributes:
        name: of the config.
        schedule: steps and peak learning rate.
        lines: (subject, text) of each line, in reading order.
    """

    name: str
    schedule: Schedule
    lines: list[tuple[str, str]]

    def __str__(self) -> str:
        return f"{self.name}\n{format_lines(self.lines)}"


def make_plan(
    config: Config,
    folder: RunFolder,
    encoder: GivenEncoder | None = None,
    images: GivenImages | None = None,
) -> Plan:
    """Returns the plan of a config; opens no image and writes nothing.

    A run that is resumed has the photos that it was started with.

    Args:
        config: of the run.
        folder: the run folder, which needn't exist.
        encoder: of an `Experiment` that has it from Python.
        images: likewise.

    Raises:
        ConfigError: if there are fewer images than a batch has, the networks don't fit into
            memory, there is no such teacher, or the engine of the views can't be imported.
        SourceError: if the images can't be found.
    """
    check_view_engine(config)
    source = plan_source(
        **source_options(config, images),
        manifest=saved_manifest(folder),
        scan_folder=str(folder.root.parent),
    )
    if compares_epochs(config):
        check_metric(config, source.counts["train"] > 0)
    schedule = training_schedule(config, source.counts["pretrain"])
    teacher = load_teacher(config)
    sizes = measure_sizes(config.normalized(), encoder, None if teacher is None else teacher.width)
    _check_fits_memory(sizes)
    return Plan(config.name, schedule, plan_lines(config, source, schedule, sizes, folder))


def _check_fits_memory(sizes: Sizes) -> None:
    """Raises `ConfigError` if networks, target and optimizer need more memory than there is."""
    machine = psutil.virtual_memory().total
    total = min(machine, memory_limit() or machine)
    if sizes.checkpoint > total:
        parameters = ", ".join(f"{name} {count:,}" for name, count in sizes.parameters.items())
        raise ConfigError(
            "encoder.width, projector.hidden_size, projector.output_size, "
            "predictor.hidden_size: expected networks that fit, with target and optimizer, "
            f"into the {_bytes_text(total)} of memory here; received ones of "
            f"{_bytes_text(sizes.checkpoint)} ({parameters} parameters)"
        )


def format_lines(lines: list[tuple[str, str]]) -> str:
    """Returns lines (subject, text) as an indented table of two columns.

    In a terminal long texts continue in their column.
    """
    return "\n".join(wrapped(f"{subject:<13} {text}", indent=16) for subject, text in lines)


def plan_lines(
    config: Config, source: SourceInfo, schedule: Schedule, sizes: Sizes, folder: RunFolder
) -> list[tuple[str, str]]:
    """Returns (subject, text) of each line of a plan, in reading order.

    Args:
        config: of the run.
        source: counts, shape and memory of its images.
        schedule: its steps and peak learning rate.
        sizes: parameters and bytes of its networks.
        folder: the run folder.
    """
    counts, training, metric = source.counts, config.training, config.monitor.metric
    has_probe = bool(counts["train"] and (counts["test"] or config.probe.split == "held_out"))
    lines = [
        ("recipe", _recipe_text(config)),
        ("images", _images_text(config, source)),
        *_few_photos_lines(config, source),
        ("labels", _labels_text(config, source)),
        *_class_lines(source),
        *(("", note) for note in source.notes),
        (
            "views",
            f"{config.views.size} x {config.views.size}, preset {config.views.preset}, engine "
            f"{config.views.engine}{_inference_text(config)}",
        ),
        (
            "network",
            ", ".join(f"{name} {count:,}" for name, count in sizes.parameters.items())
            + " parameters",
        ),
        ("normalization", _normalization_text(config)),
    ]
    if config.encoder.weights:
        lines.append(("starts from", f"encoder: {config.encoder.weights}"))
    if config.objective.teacher:
        lines.append(("teacher", config.objective.teacher))
    lines += [
        (
            "training",
            f"{counted(training.epochs, 'epoch')} of {counted(schedule.steps_per_epoch, 'step')} "
            f"of {training.batch_size} images: {counted(schedule.total_steps, 'step')}",
        ),
        *_early_stopping_lines(config),
        *_resume_lines(config, schedule, folder),
        (
            "optimizer",
            f"{config.optimizer.name}, {_rate_text(config, schedule)}, weight decay "
            f"{config.optimizer.weight_decay:g}",
        ),
        ("objective", _objective_text(config)),
        ("tau", _tau_text(config)),
        (
            "device",
            f"{config.devices.strategy}, {_precision_text(config)}, jit "
            f"{config.devices.jit_compile}",
        ),
        (
            "run folder",
            f"{folder.root}: config, history, figures, TensorBoard logs, checkpoints (newest "
            f"{config.run.keep_checkpoints}), encoder",
        ),
        *_disk_lines(config, has_probe or metric == "effective_rank", sizes, folder),
    ]
    return lines


def _precision_text(config: Config) -> str:
    wanted, strategy = config.devices.precision, config.devices.strategy
    precision = run_precision(wanted, strategy)
    if wanted == "auto":
        return f"{precision} (auto)"
    if wanted == "mixed_bfloat16" and not has_fast_bfloat16(strategy):
        return f'{precision}, which is slow here (no bfloat16 in hardware; "auto" is float32)'
    return precision


def _early_stopping_lines(config: Config) -> list[tuple[str, str]]:
    monitor = config.monitor
    if not compares_epochs(config):
        return []
    texts = []
    if monitor.early_stopping is not None:
        count = counted(monitor.early_stopping, "measurement")
        texts.append(f"once {count} in a row didn't raise {monitor.metric}")
    if config.run.export == "best":
        texts.append(f"the epoch with the highest {monitor.metric} is exported")
    return [("stops early" if monitor.early_stopping else "exports", "; ".join(texts))]


def _resume_lines(config: Config, schedule: Schedule, folder: RunFolder) -> list[tuple[str, str]]:
    """Returns a line on where a run with a checkpoint is resumed, and on what is left of it."""
    checkpoints = list_checkpoints(folder.checkpoints)
    if not checkpoints:
        return []
    epoch, step = position_of(checkpoints[-1])
    left = max(0, schedule.total_steps - epoch * schedule.steps_per_epoch - step)
    within = f", step {step} of {schedule.steps_per_epoch} in the next" if step else ""
    text = f"after epoch {epoch} of {config.training.epochs}{within}; {counted(left, 'step')} left"
    return [("resumes", text)]


def _recipe_text(config: Config) -> str:
    recipe, differences = recipe_differences(config)
    if not differences:
        return f"{recipe}, unchanged"
    shown = ", ".join(
        f"{key} {_shorten(value)} instead of {_shorten(recipe_value)}"
        for key, recipe_value, value in differences[:_KEYS_SHOWN]
    )
    more = len(differences) - _KEYS_SHOWN
    return f"{recipe} with {shown}" + (f" and {more} more" if more > 0 else "")


def _shorten(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:23]}…"


def _inference_text(config: Config) -> str:
    size = config.encoder.inference_size
    return f"; whole images at {size} x {size}" if size else ""


def _images_text(config: Config, source: SourceInfo) -> str:
    shape = (
        "of several sizes"
        if source.image_shape is None
        else f"{source.image_shape[0]} x {source.image_shape[1]}"
    )
    channels, depth = config.data.channels, config.data.depth
    form = "" if (channels, depth) == (3, 8) else f"{channels} channels of {depth} bits, "
    cached = (
        f"in memory, {source.bytes_in_memory / 1e6:,.0f} MB"
        if source.in_memory
        else "read again each epoch"
    )
    return (
        f"{config.data.source}: {source.counts['pretrain']:,} for pre-training, {shape}, "
        f"{form}{cached}"
    )


def _few_photos_lines(config: Config, source: SourceInfo) -> list[tuple[str, str]]:
    """Returns a warning where own photos are too few to train an encoder on from the start."""
    count, own = source.counts["pretrain"], SOURCES[config.data.source].takes == ("root",)
    started = config.encoder.weights is not None or config.objective.teacher is not None
    if not own or started or count >= _FEW_PHOTOS:
        return []
    text = (
        f"{counted(count, 'photo')} are few to train an encoder on. A pretrained one "
        "and some labels usually give more: docs/choosing.md"
    )
    return [("warning", text)]


def _labels_text(config: Config, source: SourceInfo) -> str:
    counts = source.counts
    if not counts["train"]:
        return "none, so no probe"
    classes = f"{source.classes} class{'' if source.classes == 1 else 'es'}"
    text = f"{counts['train']:,} train, {counts['test']:,} test, {classes}"
    if config.probe.split == "held_out":
        text += "; probe on a held-out fifth of train"
    limits = {"train": config.probe.train_images, "test": config.probe.test_images}
    used = [f"{n:,} {split}" for split, n in limits.items() if n and n < counts[split]]
    return f"{text}; the probe uses {', '.join(used)}" if used else text


def _class_lines(source: SourceInfo) -> list[tuple[str, str]]:
    """Returns a line with the classes, so that a folder that is read wrongly is seen."""
    counts = source.class_counts
    if not counts:
        return []
    text = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:_CLASSES_SHOWN])
    if (more := len(counts) - _CLASSES_SHOWN) > 0:
        text += f" and {more:,} more"
    return [("classes", text)]


def _normalization_text(config: Config) -> str:
    by_network: dict[str, str] = {
        "encoder": config.encoder.normalization if config.encoder.name in ENCODERS else "its own",
        "projector": config.projector.normalization,
    }
    if config.predictor.kind != "none":
        by_network["predictor"] = config.predictor.normalization
    if len(set(by_network.values())) == 1:
        return by_network["encoder"]
    return ", ".join(f"{network} {name}" for network, name in by_network.items())


def _rate_text(config: Config, schedule: Schedule) -> str:
    optimizer, predictor = config.optimizer, config.predictor
    text = f"learning rate {schedule.peak_rate:g}, {optimizer.schedule}"
    if schedule.warmup_steps:
        text += f" after {schedule.warmup_steps:,} warm-up steps"
    predictor_schedule = predictor.schedule or optimizer.schedule
    if predictor.learning_rate_multiplier != 1.0 or predictor_schedule != optimizer.schedule:
        predictor_rate = schedule.peak_rate * predictor.learning_rate_multiplier
        text += f" (predictor {predictor_rate:g}, {predictor_schedule})"
    if optimizer.layer_decay != 1.0:
        first_layers = schedule.peak_rate * optimizer.layer_decay**GROUPS
        text += f"; {first_layers:.2g} in the encoder's first layers"
    if config.encoder.frozen_epochs:
        text += f"; encoder frozen for {counted(config.encoder.frozen_epochs, 'epoch')}"
    if config.encoder.freeze_batch_norm:
        text += "; its batch normalisation frozen"
    return text


def _objective_text(config: Config) -> str:
    objective = config.objective
    directions = {
        "symmetric": "both directions",
        "asymmetric": "one direction",
        "asymmetric_2x": "one direction, two pairs of views",
    }[objective.symmetrization]
    terms = [
        objective.similarity.replace("_", "-"),
        directions,
        f"target {objective.target.replace('_', ' ')}",
    ]
    if objective.negatives:
        terms.append(f"negatives {objective.negatives:g} at temperature {objective.temperature:g}")
    if objective.weight != 1.0:
        terms.append(f"weight {objective.weight:g}")
    return ", ".join(terms)


def _tau_text(config: Config) -> str:
    tau = config.tau
    if config.objective.target == "teacher":
        return "none, the teacher stays as it is"
    if config.objective.target != "ema":
        return "none, the online network is its own target"
    if tau.schedule == "constant":
        return f"{tau.base:g} throughout"
    if tau.schedule == "drop":
        return f"{tau.base:g}, and 0 after {tau.resolved_drop_at:.0%} of the steps"
    return f"{tau.base:g} to {tau.resolved_end:g}, {tau.schedule.replace('_', ' ')}"


def _disk_lines(
    config: Config, keeps_best: bool, sizes: Sizes, folder: RunFolder
) -> list[tuple[str, str]]:
    """Returns a line on the disk space needed and free, and a warning if it may not suffice."""
    # The newest, the best, and one that is being written; the encoder in two formats.
    checkpoints = config.run.keep_checkpoints + keeps_best + 1
    needed = checkpoints * sizes.checkpoint + 2 * sizes.encoder
    text = (
        f"at most {_bytes_text(needed)}, in checkpoints of {_bytes_text(sizes.checkpoint)} and an "
        f"encoder of {_bytes_text(sizes.encoder)}"
    )
    root = folder.root.absolute()
    existing = next(path for path in (root, *root.parents) if path.is_dir())
    try:
        free = shutil.disk_usage(existing).free
        written = sum(
            path.stat().st_size
            for directory in (folder.checkpoints, folder.export)
            for path in directory.rglob("*")
            if path.is_file()
        )
    except OSError:  # no run needs this line
        return [("disk", text)]
    lines = [("disk", f"{text}; {_bytes_text(free)} are free there")]
    if free + written < needed:
        lines.append(
            (
                "warning",
                f"the run folder's disk may fill up: {_bytes_text(needed - written)} to be "
                f"written, {_bytes_text(free)} free in {existing}. run.keep_checkpoints=2 takes "
                "the least; run.root names another folder",
            )
        )
    return lines


def _bytes_text(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
