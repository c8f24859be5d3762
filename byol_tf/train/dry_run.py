"""How fast a config's input and its training step are on this machine, each alone, tried out for a
few seconds."""

import os
import statistics
import time
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config.schedule import Schedule
from byol_tf.config.schema import Config
from byol_tf.devices import on_cpu
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.from_config import build_model, compile_model
from byol_tf.runs.data import train_batches
from pipelines.sources import Images


@dataclass(frozen=True)
class ThroughputEstimate:
    """How fast input and training step are, each alone, as `rates.measure_throughput` found.

    Attributes:
        inputs: images a second that reading, and what the host makes of images, give; one of each
            timing.
        steps: images a second that the training step takes, over all devices; one of each timing.
        cores: that the input had.
        bytes_per_image: that go from the host to the devices.
        batch: images in the step that was tried.
        on_cpu: whether the step ran on the cores that the input needs.
    """

    inputs: tuple[float, ...]
    steps: tuple[float, ...]
    cores: int
    bytes_per_image: int
    batch: int
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
        """Cores that would feed the step."""
        return self.step / self.input * self.cores

    @property
    def together(self) -> float:
        """Images a second to be expected of both."""
        return self._of_both(self.input, self.step)

    @property
    def slowest_and_fastest(self) -> tuple[float, float]:
        """The same where all goes as in the slowest timings, and where all goes as in the
        fastest."""
        return self._of_both(min(self.inputs), min(self.steps)), self._of_both(
            max(self.inputs), max(self.steps)
        )

    def _of_both(self, input: float, step: float) -> float:
        return 1.0 / (1.0 / step + 1.0 / input) if self.on_cpu else min(step, input)


SAMPLE = 512
"""Images that are tried out."""
_SECONDS = 2.0
_MADE_AHEAD = 6
_TIMINGS = 3
"""Of input and step each, one after the other, so that it shows how far they can be trusted."""
_STEPS, _STEPS_ON_CPU = 32, 2
_LEARNING_RATE = 1e-6
_PIXELS_ON_CPU = 32 * 96 * 96
"""Of a view's batch, at most: what a CPU does in seconds."""


def measure_throughput(
    config: Config, images: Images, strategy: tf.distribute.Strategy
) -> ThroughputEstimate:
    """Tries out input and step. The step's batch is the config's, or one of the parts that it is
    taken in; on a CPU at most so large that it takes seconds.

    Args:
        config: of the run.
        images: some of those to learn from.
        strategy: that the config names.

    Raises:
        tf.errors.ResourceExhaustedError: if a device's memory doesn't hold the step.
    """
    batch_size = config.training.batch_size
    if on_cpu(strategy):
        batch_size = min(batch_size, max(8, _PIXELS_ON_CPU // config.views.size**2))
    else:  # what is on a device at a time
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
    size = sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in batch) // batch_size
    steps = _step_rates(small, strategy, batch, cropped=images.shape is None)
    return ThroughputEstimate(inputs, steps, os.cpu_count(), size, batch_size, on_cpu(strategy))


def _input_rates(batches: tf.data.Dataset, batch_size: int) -> tuple[float, ...]:
    """Of as many batches as fit into the time, at least one, in so many parts as there are
    timings."""
    iterator = iter(batches)
    for _ in range(_MADE_AHEAD):
        next(iterator)
    times = [time.perf_counter()]
    while times[-1] - times[0] < _SECONDS:
        next(iterator)
        times.append(time.perf_counter())
    parts = np.array_split(np.diff(times), min(_TIMINGS, len(times) - 1))
    return tuple(float(batch_size * len(part) / part.sum()) for part in parts)


class _Clock(keras.callbacks.Callback):
    """Times each epoch; at its end the logs have been fetched, so the device is done."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(time.perf_counter() - self._began)


def _step_rates(
    config: Config, strategy: tf.distribute.Strategy, batch: tuple[tf.Tensor, ...], cropped: bool
) -> tuple[float, ...]:
    """By `fit` on one batch again and again: an epoch that compiles, and one for each timing."""
    steps = _STEPS_ON_CPU if on_cpu(strategy) else _STEPS
    with strategy.scope():
        model = build_model(config, cropped=cropped)
        compile_model(model, config, Schedule(steps, (1 + _TIMINGS) * steps, 0, _LEARNING_RATE))
    clock = _Clock()
    updates = [TargetUpdate(constant_tau(0.99))] if config.objective.target == "ema" else []
    again = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(
        again,
        epochs=1 + _TIMINGS,
        steps_per_epoch=steps,
        callbacks=[*updates, clock],
        verbose=0,
        shuffle=False,
    )
    return tuple(steps * config.training.batch_size / seconds for seconds in clock.seconds[1:])
