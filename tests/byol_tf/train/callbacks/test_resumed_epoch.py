"""A `fit` that begins within an epoch logs what one logs that ran through."""

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
    """Notes epochs' logs and steps; stops after a step of an epoch."""

    def __init__(self, stop_at: tuple[int, int] | None = None):
        super().__init__()
        self.stop_at, self.epochs, self.begun = stop_at, [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.steps = epoch, 0
        self.begun.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.steps = batch + 1
        if (self.epoch, batch + 1) == self.stop_at:
            self.means = running_means(self.model)
            raise Stop

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((epoch, self.steps, logs["loss"], logs["projection_std"]))


def compiled(**options):
    model = tiny.model()
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
def undisturbed() -> Listener:
    """What a `fit` logs that runs through."""
    keras.utils.set_random_seed(0)
    train(compiled(), 0, [listener := Listener()])
    return listener


@pytest.mark.parametrize(("stop_at", "in_a_call"), [((1, 4), 2), ((2, 5), 1)])
def test_logs_are_those_of_whole_epochs_to_the_last_bit(undisturbed, stop_at, in_a_call):
    epoch, step = stop_at
    model = compiled(steps_per_execution=in_a_call)
    with pytest.raises(Stop):
        train(model, 0, [stopped := Listener(stop_at)])
    train(model, epoch * STEPS + step, [ResumedEpoch(step, stopped.means), resumed := Listener()])
    assert resumed.begun == list(range(epoch, 3))
    assert [steps for _, steps, *_ in resumed.epochs] == [STEPS - step] + [STEPS] * (2 - epoch)
    assert [(epoch, *logs) for epoch, _, *logs in resumed.epochs] == [
        (epoch, *logs) for epoch, _, *logs in undisturbed.epochs[epoch:]
    ]


def test_without_the_means_they_are_not(undisturbed):
    """So the test above can fail."""
    model = compiled()
    with pytest.raises(Stop):
        train(model, 0, [Listener((1, 4))])
    zero = {metric.name: (0.0, 0.0) for metric in model.metrics}
    train(model, STEPS + 4, [ResumedEpoch(4, zero), resumed := Listener()])
    assert resumed.epochs[0][2:] != undisturbed.epochs[1][2:]
    assert resumed.epochs[1][2:] == undisturbed.epochs[2][2:]


def test_throughput_counts_the_steps_before():
    before = Throughput(16, seconds=5.0, steps=10, epoch_seconds=2.0, epoch_steps=4)
    again = Throughput(16, **before.state)
    again.on_epoch_begin(1)
    again.on_train_batch_end(1, logs := {})
    assert (again.steps, again.epoch_steps) == (12, 6)
    assert again.epoch_seconds > 2.0
    assert logs["images_per_second"] == pytest.approx(6 * 16 / again.epoch_seconds)
    again.on_epoch_end(1, logs)
    assert again.state["epoch_steps"] == 0
    assert again.seconds > 5.0
