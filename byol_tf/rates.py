"""How fast a config's input and its training step are on this machine, each alone, tried out for a few seconds."""

import os
import time

import keras
import tensorflow as tf

from byol_tf.build import build_model, compile_model
from byol_tf.config import Config
from byol_tf.devices import on_cpu
from byol_tf.feeding import batches_of
from byol_tf.plan import Rates, Schedule
from byol_tf.target import TargetUpdate, constant_tau
from pipelines.sources import Images

SAMPLE = 512
"""Images that are tried out."""
_SECONDS = 2.0
_MADE_AHEAD = 6
_STEPS, _STEPS_ON_CPU = 48, 2
_RATE = 1e-6
_PIXELS_ON_CPU = 32 * 96 * 96
"""Of a view's batch, at most: what a CPU does in seconds."""


def measure_rates(config: Config, images: Images, strategy: tf.distribute.Strategy) -> Rates:
    """Tries out input and step. The step's batch is the config's, or one of the parts that it is taken in; on a CPU at most so large
    that it takes seconds.

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
        batch_size //= config.training.accumulation
    replicas = strategy.num_replicas_in_sync
    batch_size = min(batch_size, len(images)) // replicas * replicas
    small = config.model_copy(update={"training": config.training.model_copy(update={"batch_size": batch_size, "accumulation": 1})})
    batches = batches_of(small, images)
    speed = _input_rate(batches, batch_size)
    batch = next(iter(batches))
    size = sum(tensor.dtype.size * tensor.shape.num_elements() for tensor in batch) // batch_size
    step = _step_rate(small, strategy, batch, cropped=images.shape is None)
    return Rates(speed, step, os.cpu_count(), size, batch_size, on_cpu(strategy))


def _input_rate(batches: tf.data.Dataset, batch_size: int) -> float:
    iterator = iter(batches)
    for _ in range(_MADE_AHEAD):
        next(iterator)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < _SECONDS:
        next(iterator)
        done += 1
    return done * batch_size / (time.perf_counter() - began)


class _Clock(keras.callbacks.Callback):
    """Times each epoch; at its end the logs have been fetched, so the device is done."""

    def on_epoch_begin(self, epoch, logs=None):
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds = time.perf_counter() - self._began


def _step_rate(config: Config, strategy: tf.distribute.Strategy, batch: tuple[tf.Tensor, ...], cropped: bool) -> float:
    """By `fit` on one batch again and again: an epoch that compiles, and one that counts."""
    steps = _STEPS_ON_CPU if on_cpu(strategy) else _STEPS
    with strategy.scope():
        model = build_model(config, cropped=cropped)
        compile_model(model, config, Schedule(steps, 2 * steps, 0, _RATE))
    clock = _Clock()
    updates = [TargetUpdate(constant_tau(0.99))] if config.objective.target == "ema" else []
    again = tf.data.Dataset.from_tensors(batch).repeat()
    model.fit(again, epochs=2, steps_per_epoch=steps, callbacks=[*updates, clock], verbose=0, shuffle=False)
    return steps * config.training.batch_size / clock.seconds
