"""Throughput of the input and of the training step on this machine, measured for `--dry-run`."""

import logging
import os
import statistics
import time
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from byol_tf.config.schedule import Schedule, check_batch
from byol_tf.config.schema import Config
from byol_tf.devices import build_strategy, on_cpu, run_precision
from byol_tf.errors import DeviceError
from byol_tf.logs import ProgressLog, activity
from byol_tf.models.construction import dtype_policy
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.from_config import (
    GivenEncoder,
    build_config_encoder,
    build_model,
    compile_model,
)
from byol_tf.runs.checkpoints import list_checkpoints, position_of
from byol_tf.runs.data import train_batches
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.sources import source_options
from byol_tf.runs.starting_weights import starting_weights
from byol_tf.train.callbacks.throughput import Throughput
from byol_tf.train.out_of_memory import out_of_memory
from byol_tf.train.teacher import load_teacher
from pipelines.registry import SOURCES
from pipelines.sources import GivenImages, Images, sample_source

logger = logging.getLogger(__name__)

_SAMPLE_IMAGES = 512
"""Images that are read for the measurement."""
_INPUT_SECONDS = 2.0
_PREFETCHED_BATCHES = 6
"""Batches that a pipeline may hold before the first is asked for; they aren't timed."""
_REPORTED_SECONDS = 10.0
"""Time to decode all images from which on it has a line."""
_TIMINGS = 3
"""Timings of input and step each, so that their range shows how far they can be trusted."""
_STEPS, _STEPS_ON_CPU = 32, 2
_LEARNING_RATE = 1e-6
_PIXELS_ON_CPU = 32 * 96 * 96
"""The largest batch of views that a CPU is timed on, in pixels: a step takes about a second."""
_DEVICES = (1, 8)
"""Numbers of devices for which the cores that feed them are given."""


@dataclass(frozen=True)
class ThroughputEstimate:
    """Images per second of input and training step, each alone, as `measure_throughput` found.

    Attributes:
        inputs: images per second that the host reads and prepares, one for each timing.
        steps: images per second that the training step takes over all devices, likewise.
        cores: CPU cores that the input had.
        bytes_per_image: bytes that go from the host to the devices.
        batch_size: images in the measured step.
        on_cpu: whether the step ran on the cores that the input needs.
    """

    inputs: tuple[float, ...]
    steps: tuple[float, ...]
    cores: int
    bytes_per_image: int
    batch_size: int
    on_cpu: bool

    @property
    def input(self) -> float:
        """The median of `inputs`."""
        return statistics.median(self.inputs)

    @property
    def step(self) -> float:
        """The median of `steps`."""
        return statistics.median(self.steps)

    @property
    def cores_needed(self) -> float:
        """Cores like these that would feed the step."""
        return self.step / self.input * self.cores

    @property
    def combined(self) -> float:
        """Expected images per second of a run."""
        return self._combine(self.input, self.step)

    @property
    def combined_range(self) -> tuple[float, float]:
        """Expected images per second by the slowest timings and by the fastest."""
        return (
            self._combine(min(self.inputs), min(self.steps)),
            self._combine(max(self.inputs), max(self.steps)),
        )

    def _combine(self, input: float, step: float) -> float:
        # On a CPU input and step take turns on the same cores.
        return 1.0 / (1.0 / step + 1.0 / input) if self.on_cpu else min(step, input)


def measure_lines(
    config: Config,
    folder: RunFolder,
    schedule: Schedule,
    encoder: GivenEncoder | None = None,
    images: GivenImages | None = None,
) -> list[tuple[str, str]]:
    """Returns lines (subject, text) on the speed here and the time that is left.

    Args:
        config: of the run.
        folder: its run folder, whose newest checkpoint shortens the time.
        schedule: of the run.
        encoder: of an `Experiment` that has it from Python.
        images: likewise.

    Raises:
        ConfigError: if the encoder can't start from `encoder.weights`, or the replicas don't divide
            the batch.
        SourceError: if the images can't be opened.
    """
    devices = config.devices
    if config.encoder.weights is not None:
        starting_weights(config.encoder.weights, build_config_encoder(config, encoder), config)
    if devices.strategy == "multi_worker":
        return _not_measured(
            "that takes all workers. With devices.strategy=auto it is measured for this machine"
        )
    try:
        strategy = build_strategy(devices.strategy, devices.tpu)
    except DeviceError as error:
        return _not_measured(str(error))
    check_batch(config, strategy.num_replicas_in_sync)
    start = time.perf_counter()
    sample = sample_source(
        count=_SAMPLE_IMAGES, on_progress=ProgressLog(logger), **source_options(config, images)
    )
    if sample is None:
        return _not_measured("a run downloads or prepares the images first")
    reading = (time.perf_counter() - start) / max(len(sample), 1)
    try:
        with activity("measuring input and training step"):
            estimate = measure_throughput(config, sample, strategy, encoder)
    except tf.errors.ResourceExhaustedError as error:
        return _not_measured(str(out_of_memory(config, error)))
    epochs, steps = max(map(position_of, list_checkpoints(folder.checkpoints)), default=(0, 0))
    steps_left = max(0, schedule.total_steps - epochs * schedule.steps_per_epoch - steps)
    batch_size = config.training.batch_size
    return [
        *reading_lines(reading, schedule.steps_per_epoch * batch_size),
        *throughput_lines(estimate, steps_left * batch_size, remedies(config)),
    ]


def measure_throughput(
    config: Config,
    images: Images,
    strategy: tf.distribute.Strategy,
    encoder: GivenEncoder | None = None,
) -> ThroughputEstimate:
    """Measures input and training step, each alone.

    The step's batch is the config's, or one of its micro-batches; on a CPU at most so large that it
    takes seconds.

    Args:
        config: of the run.
        images: a sample of the pre-training images.
        strategy: the `tf.distribute` strategy that the config names.
        encoder: of an `Experiment` that has it from Python.

    Raises:
        tf.errors.ResourceExhaustedError: if a device's memory doesn't hold the step.
    """
    batch_size = config.training.batch_size
    if on_cpu(strategy):
        batch_size = min(batch_size, max(8, _PIXELS_ON_CPU // config.views.size**2))
    else:
        batch_size //= config.training.gradient_accumulation_steps
    replicas = strategy.num_replicas_in_sync
    batch_size = min(batch_size, len(images)) // replicas * replicas
    small = config.model_copy(
        update={
            "training": config.training.model_copy(
                update={"batch_size": batch_size, "gradient_accumulation_steps": 1}
            )
        }
    )
    batches = train_batches(small, images)
    inputs = _input_rates(batches, batch_size)
    batch = next(iter(batches))
    batch_bytes = sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in batch)
    steps = _step_rates(small, strategy, batch, images.shape is None, encoder)
    return ThroughputEstimate(
        inputs,
        steps,
        os.cpu_count() or 1,
        batch_bytes // batch_size,
        batch_size,
        on_cpu(strategy),
    )


def reading_lines(seconds: float, images: int) -> list[tuple[str, str]]:
    """Returns a line (subject, text) on the time to decode all images, if that is worth one.

    Files are decoded when they are first used, other sources before the first step.

    Args:
        seconds: that it took to read one image.
        images: that the run uses.
    """
    if seconds * images < _REPORTED_SECONDS:
        return []
    text = f"about {_duration(seconds * images)} to decode all images once"
    return [("reading", f"{text}, at {1 / seconds:,.0f} images/s")]


def throughput_lines(
    estimate: ThroughputEstimate, images: int, remedies: str
) -> list[tuple[str, str]]:
    """Returns lines (subject, text), with a warning where the input is slower than the step.

    Args:
        estimate: as measured.
        images: that the run has still to process, over all epochs.
        remedies: see the function `remedies`.
    """
    megabytes = estimate.step * estimate.bytes_per_image / 1e6
    lines = [
        (
            "input",
            f"{estimate.input:,.0f} images/s alone, on {estimate.cores} cores; "
            f"{estimate.bytes_per_image / 1e3:,.1f} kB an image to the step",
        ),
        ("step", f"{estimate.step:,.0f} images/s, timed in batches of {estimate.batch_size}"),
    ]
    if not estimate.on_cpu:
        lines.append(
            (
                "feeding",
                "; ".join(
                    f"{count} such device{'s' if count > 1 else ''}: "
                    f"{_cores_text(count * estimate.cores_needed)}, {count * megabytes:,.0f} MB/s"
                    for count in _DEVICES
                ),
            )
        )
    lines.append(("time", _time_text(estimate, images)))
    if estimate.input < estimate.step:
        less_work = f", or less work for each image: {remedies}" if remedies else ""
        lines.append(
            (
                "warning",
                "the input is slower than the step, which waits "
                f"{1.0 - estimate.input / estimate.step:.0%} of the time. It would take "
                f"{estimate.cores_needed:,.0f} cores like these{less_work}",
            )
        )
    return lines


def remedies(config: Config) -> str:
    """Returns the keys that would lower the host's work for each image, in words; may be empty."""
    views, data = config.views, config.data
    changes = []
    if views.engine != "fused":
        changes.append("views.engine=fused")
    elif views.placement == "host":
        changes.append("views.placement=step")
    reads_files = bool(SOURCES[data.source].takes)
    if reads_files and (data.image_size is None or data.cache == "none"):
        changes.append("photos made smaller once (data.image_size with data.cache=memory)")
    return ", or ".join(changes)


def _not_measured(reason: str) -> list[tuple[str, str]]:
    return [("speed", f"not measured: {reason}")]


def _input_rates(batches: tf.data.Dataset, batch_size: int) -> tuple[float, ...]:
    """Returns images per second of the input, for `_TIMINGS` parts of `_INPUT_SECONDS`.

    There are fewer timings where fewer batches come in that time.
    """
    iterator = iter(batches)
    for _ in range(_PREFETCHED_BATCHES):
        next(iterator)
    times = [time.perf_counter()]
    while times[-1] - times[0] < _INPUT_SECONDS:
        next(iterator)
        times.append(time.perf_counter())
    timings = np.array_split(np.diff(times), min(_TIMINGS, len(times) - 1))
    return tuple(float(batch_size * len(seconds) / seconds.sum()) for seconds in timings)


def _step_rates(
    config: Config,
    strategy: tf.distribute.Strategy,
    batch: tuple[tf.Tensor, ...],
    cropped: bool,
    encoder: GivenEncoder | None,
) -> tuple[float, ...]:
    """Returns images per second of `fit` on one repeated batch; a first epoch compiles."""
    steps = _STEPS_ON_CPU if on_cpu(strategy) else _STEPS
    precision = run_precision(config.devices.precision, config.devices.strategy)
    with strategy.scope(), dtype_policy(precision):
        teacher = load_teacher(config)
        model = build_model(config, cropped, encoder, None if teacher is None else teacher.model)
        compile_model(model, config, Schedule(steps, (1 + _TIMINGS) * steps, 0, _LEARNING_RATE))
    updates = [TargetUpdate(constant_tau(0.99))] if config.objective.target == "ema" else []
    history = model.fit(
        tf.data.Dataset.from_tensors(batch).repeat(),
        epochs=1 + _TIMINGS,
        steps_per_epoch=steps,
        callbacks=[*updates, Throughput(config.training.batch_size)],
        verbose=0,
        shuffle=False,
    )
    return tuple(history.history["images_per_second"][1:])


def _unit(seconds: float) -> tuple[str, int]:
    """Returns the unit in which a duration is readable, and its length in seconds."""
    units = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
    return next((name, length) for name, length in units if seconds >= 2 * length or length == 1)


def _duration(seconds: float) -> str:
    unit, length = _unit(seconds)
    return f"{seconds / length:,.1f} {unit}"


def _cores_text(cores: float) -> str:
    return f"{cores:,.0f} cores" if cores >= 10 else f"{cores:.2g} cores"


def _time_text(estimate: ThroughputEstimate, images: int) -> str:
    slowest, fastest = estimate.combined_range
    seconds = images / estimate.combined
    unit, length = _unit(seconds)
    timings = min(len(estimate.inputs), len(estimate.steps))
    spread = ""
    if timings > 1:
        spread = (
            f" ({images / fastest / length:,.1f} to {images / slowest / length:,.1f}, "
            f"from {timings} timings)"
        )
    return (
        f"about {seconds / length:,.1f} {unit} of training left{spread}, at "
        f"{estimate.combined:,.0f} images/s"
    )
