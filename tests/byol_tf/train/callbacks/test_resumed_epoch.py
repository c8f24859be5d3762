"""Logs of a `fit` that resumes within an epoch equal those of an uninterrupted one."""

import keras
import pytest
import tensorflow as tf

from byol_tf.train.callbacks.checkpoint import ResumedEpoch, running_means
from byol_tf.train.callbacks.throughput import Throughput
from tests.helpers import tiny

STEPS = 6


class Stop(Exception):
    """Stands for the end of a process."""


class Listener(keras.callbacks.Callback):
    """Records epochs' logs and steps; stops after a step of an epoch."""

    def __init__(self, stop_at: tuple[int, int] | None = None):
        super().__init__()
        self.stop_at, self.epochs, self.started = stop_at, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.steps = epoch, 0
        self.started.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.steps = batch + 1
        if (self.epoch, batch + 1) == self.stop_at:
            self.means = running_means(self.model)
            raise Stop

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch, self.steps, logs["loss"], logs["projection_std"]))


def compiled(**options):
    model = tiny.model(tau=1.0)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=False, **options)
    return model


def train(model, first_step: int, callbacks: list) -> None:
    batches = (
        tiny.dataset(3 * STEPS)
        .skip(first_step)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )
    model.fit(
        batches,
        epochs=3,
        initial_epoch=first_step // STEPS,
        steps_per_epoch=STEPS,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    )


@pytest.fixture(scope="module")
def uninterrupted() -> Listener:
    """The logs of an uninterrupted `fit`."""
    keras.utils.set_random_seed(0)
    train(compiled(), 0, [listener := Listener()])
    return listener


@pytest.mark.parametrize(("stop_at", "steps_per_execution"), [((1, 4), 2), ((2, 5), 1)])
def test_resumed_logs_are_bit_identical(uninterrupted, stop_at, steps_per_execution):
    epoch, step = stop_at
    model = compiled(steps_per_execution=steps_per_execution)
    with pytest.raises(Stop):
        train(model, 0, [stopped := Listener(stop_at)])
    train(model, epoch * STEPS + step, [ResumedEpoch(step, stopped.means), resumed := Listener()])
    assert resumed.started == list(range(epoch, 3))
    assert [steps for _, steps, *_ in resumed.epochs] == [STEPS - step] + [STEPS] * (2 - epoch)
    assert [(epoch, *logs) for epoch, _, *logs in resumed.epochs] == [
        (epoch, *logs) for epoch, _, *logs in uninterrupted.epochs[epoch:]
    ]


def test_resumed_logs_differ_without_running_means(uninterrupted):
    """The control of the test above."""
    model = compiled()
    with pytest.raises(Stop):
        train(model, 0, [Listener((1, 4))])
    zero = dict.fromkeys(model.epoch_means, (0.0, 0.0))
    train(model, STEPS + 4, [ResumedEpoch(4, zero), resumed := Listener()])
    assert resumed.epochs[0][2:] != uninterrupted.epochs[1][2:]
    assert resumed.epochs[1][2:] == uninterrupted.epochs[2][2:]


def test_resumed_throughput_counts_earlier_steps():
    earlier = {"seconds": 5.0, "steps": 10, "epoch_seconds": 2.0, "epoch_steps": 4}
    resumed = Throughput(16, earlier | {"rows": []})
    resumed.on_epoch_begin(1)
    resumed.on_train_batch_end(1, logs := {})
    assert (resumed.steps, resumed.epoch_steps) == (12, 6)
    assert resumed.epoch_seconds > 2.0
    assert logs["images_per_second"] == pytest.approx(6 * 16 / resumed.epoch_seconds)
    resumed.on_epoch_end(1, logs)
    assert resumed.state["epoch_steps"] == 0
    assert resumed.seconds > 5.0
