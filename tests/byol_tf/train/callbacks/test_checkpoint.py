"""When checkpoints are taken, and that they hold the moment at which they were."""

import logging
import os
import shutil
import signal
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.errors import Interrupted, SavesFailed
from byol_tf.runs import checkpoint_writer
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest
from byol_tf.train import input_watchdog as stuck_input
from byol_tf.train.callbacks import checkpoint as checkpoint_module
from byol_tf.train.callbacks.checkpoint import Checkpoint, model_arrays, restore_model
from byol_tf.train.input_watchdog import StuckInput
from byol_tf.train.signals import SignalWatch
from tests.helpers import tiny

STEPS = 6


class PatientWriter(CheckpointWriter):
    """Waits for each checkpoint, so that none is left out since the last is still being written."""

    def write(self, *parts):
        super().write(*parts)
        self.wait()


def compiled(**options):
    model = tiny.model()
    model.compile(keras.optimizers.Adam(0.01), jit_compile=False, **options)
    return model


def train(
    model, folder, epochs: int = 1, more=(), signals=None, writer=PatientWriter, **when
) -> None:
    checkpoint = Checkpoint(
        writer(folder, 99), lambda: {"rows": []}, signals or SignalWatch(""), **when
    )
    batches = tiny.dataset(epochs * STEPS).apply(
        tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    )
    model.fit(
        batches,
        epochs=epochs,
        steps_per_epoch=STEPS,
        callbacks=[*more, checkpoint],
        verbose=0,
        shuffle=False,
    )
    checkpoint.writer.wait()


def positions(folder) -> list[tuple[int, int]]:
    return [position_of(path) for path in list_checkpoints(folder)]


@pytest.mark.parametrize(
    ("in_a_call", "when", "expected"),
    [
        (1, {"steps": 4}, [(0, 4), (1, 0), (1, 4), (2, 0)]),
        (3, {"steps": 2}, [(0, 3), (1, 0), (1, 3), (2, 0)]),
        (2, {"minutes": 1e-9}, [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0)]),
        (1, {"minutes": 60.0}, [(1, 0), (2, 0)]),
    ],
)
def test_at_each_epochs_end_and_between_at_the_ends_of_calls(tmp_path, in_a_call, when, expected):
    train(compiled(steps_per_execution=in_a_call), tmp_path, epochs=2, **when)
    assert positions(tmp_path) == expected


def test_what_is_written_is_what_was_there_when_it_was_taken(tmp_path, monkeypatch):
    """The steps after it change the variables while they are written."""
    real = checkpoint_writer.write_checkpoint
    may_write, seen = threading.Event(), {}
    monkeypatch.setattr(
        checkpoint_writer, "write_checkpoint", lambda *parts: may_write.wait(60) and real(*parts)
    )

    class Taken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[batch + 1] = {
                name: array.copy() for name, array in model_arrays(self.model).items()
            }
            if batch + 1 == STEPS:
                may_write.set()

    train(compiled(), tmp_path, more=[Taken()], writer=CheckpointWriter, steps=2)
    assert positions(tmp_path) == [(0, 2), (1, 0)]  # the disk was busy at step 4
    last, _ = read_newest(tmp_path)
    assert_same(last.arrays, seen[6])
    shutil.rmtree(tmp_path / "epoch-0001")
    within, _ = read_newest(tmp_path)
    assert_same(within.arrays, seen[2])
    assert any((within.arrays[name] != seen[6][name]).any() for name in seen[6])
    assert set(within.state) == {"rows", "logs", "means"}


def assert_same(received: dict, expected: dict) -> None:
    assert set(received) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(received[name], array)


def test_saves_that_fail_one_after_the_other_end_fit(tmp_path, caplog):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(SavesFailed, match="3 saves in a row failed"):
        train(compiled(), tmp_path / "checkpoints", steps=1)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(("step", "in_a_call", "saved_at"), [(2, 3, 3), (6, 1, 6)])
def test_a_signal_saves_after_the_call_that_runs_and_ends_fit(tmp_path, step, in_a_call, saved_at):
    class Signal(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 >= step:
                os.kill(os.getpid(), signal.SIGTERM)
                while signals.received is None:
                    time.sleep(0.001)

    with SignalWatch("stopping") as signals, pytest.raises(Interrupted, match="SIGTERM") as raised:
        train(
            compiled(steps_per_execution=in_a_call),
            tmp_path,
            more=[Signal()],
            signals=signals,
            writer=CheckpointWriter,
        )
    assert (raised.value.epoch, raised.value.step, raised.value.saved) == (0, saved_at, True)
    assert positions(tmp_path) == [(0, saved_at)]


@pytest.mark.parametrize(("in_a_call", "step", "saved"), [(1, 4, True), (3, 3, False)])
def test_after_a_signal_a_batch_that_never_comes_is_not_waited_for(
    tmp_path, monkeypatch, in_a_call, step, saved
):
    """The thread that watches the input saves what the last step left; where that may be in the
    middle of a call, it only ends the run."""
    monkeypatch.setattr(stuck_input, "_TICK", 0.1)
    monkeypatch.setattr(checkpoint_module, "_STUCK", 0.3)
    monkeypatch.setattr(checkpoint_module, "_LOST", 0.3)
    comes, ended, seen, signals = threading.Event(), [], {}, SignalWatch("")

    def number(index):
        if index == 4:
            comes.wait(60)
        return index

    def each(seconds, still):
        signals.ask(signal.SIGTERM)  # comes while the batch is awaited
        checkpoint.on_input_stall(
            seconds, lambda: False
        )  # nothing is done where the batch has come meanwhile
        checkpoint.on_input_stall(seconds, still)

    def end(stopped):
        ended.append((stopped.epoch, stopped.step, stopped.saved, positions(tmp_path)))
        comes.set()  # in a test the process goes on

    class Taken(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[batch + 1] = {
                name: array.copy() for name, array in model_arrays(self.model).items()
            }

    numbers = tf.data.Dataset.range(STEPS).map(
        lambda index: tf.numpy_function(number, [index], tf.int64)
    )
    watch = StuckInput(pytest.fail, 60.0, each)
    batches = watch.around(
        tf.data.Dataset.zip(numbers, tiny.dataset(STEPS)).map(lambda _, views: views)
    )
    checkpoint = Checkpoint(CheckpointWriter(tmp_path, 99), lambda: {"rows": []}, signals, end=end)
    with watch, pytest.raises(Interrupted):
        compiled(steps_per_execution=in_a_call).fit(
            batches,
            steps_per_epoch=STEPS,
            callbacks=[Taken(), checkpoint],
            verbose=0,
            shuffle=False,
        )
    assert ended == [(0, step, saved, [(0, step)] * saved)]
    if saved:
        shutil.rmtree(tmp_path / "epoch-0000-step-000005")  # of the step that the batch was for
        checkpoint, _ = read_newest(tmp_path)
        assert_same(checkpoint.arrays, seen[step])
        assert set(checkpoint.state) == {"rows", "logs", "means"}


def test_after_a_signal_a_save_that_hangs_is_not_waited_for(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(checkpoint_writer, "HANG_SECONDS", 0.1)
    answers, ended, signals = threading.Event(), [], SignalWatch("")
    monkeypatch.setattr(os, "fsync", lambda descriptor: answers.wait(60))

    def end(stopped):
        ended.append((stopped.exit_code, stopped.epoch, stopped.step, stopped.saved))
        answers.set()

    asks = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batch + 1 == 4 and signals.ask(signal.SIGTERM)
    )
    writer = CheckpointWriter(tmp_path, 99)
    with pytest.raises(Interrupted):
        train(
            compiled(),
            tmp_path,
            more=[asks],
            signals=signals,
            writer=lambda *_: writer,
            steps=2,
            end=end,
        )
    assert ended == [(143, 0, 4, False)]
    assert (
        caplog.messages[-1] == "the save hangs; none was written before it since this process began"
    )
    assert positions(tmp_path) == [(0, 2), (0, 4)]


def test_the_loss_scale_of_float16_goes_on(tmp_path):
    """And the count of steps since it changed: it has changed when the run is broken off, and
    changes in the two steps after that."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = compiled()
    model.optimizer.dynamic_growth_steps = 3  # not 2,000

    def scale(arrays):
        return [
            float(array)
            for name, array in arrays.items()
            if "dynamic_scale" in name or "step_counter" in name
        ]

    train(model, tmp_path, steps=4)
    end = scale(model_arrays(model))
    shutil.rmtree(tmp_path / "epoch-0001")
    within, _ = read_newest(tmp_path)
    assert scale(within.arrays)[1] != model.optimizer.initial_scale
    assert scale(within.arrays) != end
    restore_model(model, within.arrays)
    model.fit(tiny.dataset(STEPS).skip(4), verbose=0, shuffle=False)
    assert scale(model_arrays(model)) == end
