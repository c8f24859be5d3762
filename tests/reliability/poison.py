"""Numbers that aren't finite, planted into a real run at one step.

As a command: `python -m tests.reliability.poison KIND STEP WORKER ...`, where WORKER is the machine
of TF_CONFIG that is hit, and the rest are the arguments of `byol_tf.train`.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from unittest import mock

from byol_tf.devices import prepare_environment

prepare_environment()

import tensorflow as tf

from byol_tf.models.byol import BYOL
from byol_tf.models.ema import TargetUpdate
from byol_tf.train import experiment

VALUES = {"nan": float("nan"), "inf": float("inf")}
PLACES = ("batch", "gradient", "weight", "target", "scale")
SPIKE = "spike"


@contextlib.contextmanager
def planted(kind: str, step: int) -> Iterator[None]:
    """While it is entered, runs meet `kind` (`batch-nan` to `scale-inf`, or `spike`) at one step (1
    is the first)."""
    place, _, value = kind.partition("-")
    if place == "batch":
        where = mock.patch.object(
            experiment,
            "train_batches",
            _with_bad_batch(experiment.train_batches, VALUES[value], step),
        )
    elif place in ("gradient", SPIKE):
        where = mock.patch.object(
            BYOL,
            "loss_and_gradients",
            _with_bad_gradient(BYOL.loss_and_gradients, VALUES.get(value), step),
        )
    else:
        where = mock.patch.object(
            experiment, "TargetUpdate", _with_bad_state(place, VALUES[value], step)
        )
    with where:
        yield


def _with_bad_batch(real: Callable, value: float, step: int) -> Callable:
    """`train_batches` with one pixel of one view changed."""

    def train_batches(config, images, first_step=0, *rest):
        def plant(index, batch):
            views = list(batch)
            pixel = tf.scatter_nd([[0, 3, 3, 1]], [1.0], views[0].shape) > 0.0
            views[0] = tf.where(
                pixel & (index + first_step + 1 == step), tf.cast(value, views[0].dtype), views[0]
            )
            return tuple(views)

        return real(config, images, first_step, *rest).enumerate().map(plant)

    return train_batches


def _with_bad_gradient(real: Callable, value: float | None, step: int) -> Callable:
    """`BYOL.loss_and_gradients` with one element of a gradient changed; for None, with a loss ten times as
    large."""

    steps = []

    def gradients(self, views):
        measures, found = real(self, views)
        # the optimizer's count stays where it is when a step is left out, and each after it would
        # be hit
        with tf.init_scope():
            steps.append(steps[0] if steps else tf.Variable(0, trainable=False))
        now = steps[0].assign_add(1) == step
        if value is None:
            return measures | {
                "loss": tf.where(now, 10.0 * measures["loss"], measures["loss"])
            }, found
        first = tf.reshape(found[0], [-1])
        first = tf.where(now & (tf.range(tf.size(first)) == 0), tf.cast(value, first.dtype), first)
        return measures, [tf.reshape(first, tf.shape(found[0])), *found[1:]]

    return gradients


def _with_bad_state(place: str, value: float, step: int) -> type[TargetUpdate]:
    """A `TargetUpdate` that, before the step, changes an element of a weight or of the target's, or
    the loss scale."""

    class Planting(TargetUpdate):
        def on_train_batch_begin(self, batch, logs=None):
            if (
                not self.model.steps_seen
                < step
                <= self.model.steps_seen + self.model.steps_per_execution
            ):
                return
            if place == "scale":
                self.model.optimizer.dynamic_scale.assign(value)
                return
            part = self.model.encoder if place == "weight" else self.model.target_encoder
            variable = part.trainable_variables[0]
            array = variable.numpy()
            array.flat[0] = value
            variable.assign(array)

    return Planting


def main() -> int:
    from byol_tf.train.__main__ import main as train

    kind, step, worker, *arguments = sys.argv[1:]
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    with planted(kind, int(step)) if index == int(worker) else contextlib.nullcontext():
        return train(arguments)


if __name__ == "__main__":
    sys.exit(main())
