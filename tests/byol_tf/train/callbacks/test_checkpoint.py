"""Checkpoints during `fit`: when they are taken, and that they hold one moment."""

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

from byol_tf import BYOL
from byol_tf.errors import Interrupted, SavesFailed
from byol_tf.models.construction import set_weights
from byol_tf.runs import checkpoint_writer
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, position_of, read_newest
from byol_tf.train import input_watchdog
from byol_tf.train.callbacks import checkpoint as checkpoint_module
from byol_tf.train.callbacks.checkpoint import Checkpoint, model_arrays, restore_model
from byol_tf.train.input_watchdog import InputWatchdog
from byol_tf.train.signals import SignalWatch
from tests.helpers import tiny
from tests.helpers.waiting import HANG

STEPS = 6


class PatientWriter(CheckpointWriter):
    """Waits for each checkpoint: one that is due is skipped while another is being written."""

    def write(self, *args):
        super().write(*args)
        self.wait()


def compiled(steps_per_execution: int = 1, run_eagerly: bool | None = None):
    """By default only calls of several steps are a graph: tracing takes longer than a few steps."""
    model = tiny.model(tau=1.0)
    model.compile(
        keras.optimizers.Adam(0.01),
        jit_compile=False,
        steps_per_execution=steps_per_execution,
        run_eagerly=steps_per_execution == 1 if run_eagerly is None else run_eagerly,
    )
    return model


def train(
    model, folder, epochs: int = 1, more=(), signals=None, writer=PatientWriter, **options
) -> None:
    checkpoint = Checkpoint(
        writer(folder, 99), lambda: {"rows": []}, signals or SignalWatch(""), **options
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
    ("steps_per_execution", "options", "expected"),
    [
        (1, {"every_steps": 4}, [(0, 4), (1, 0), (1, 4), (2, 0)]),
        (3, {"every_steps": 2}, [(0, 3), (1, 0), (1, 3), (2, 0)]),
        (2, {"every_minutes": 1e-9}, [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0)]),
        (1, {"every_minutes": 60.0}, [(1, 0), (2, 0)]),
    ],
)
def test_positions_of_checkpoints(tmp_path, steps_per_execution, options, expected):
    train(compiled(steps_per_execution=steps_per_execution), tmp_path, epochs=2, **options)
    assert positions(tmp_path) == expected


def test_checkpoint_holds_one_moment_while_training_continues(tmp_path, monkeypatch):
    """The steps after it change the variables while it is being written."""
    real = checkpoint_writer.write_checkpoint
    may_write, seen = threading.Event(), {}
    monkeypatch.setattr(
        checkpoint_writer, "write_checkpoint", lambda *args: may_write.wait(HANG) and real(*args)
    )

    class Snapshots(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[batch + 1] = {
                name: array.copy() for name, array in model_arrays(self.model).items()
            }
            if batch + 1 == STEPS:
                may_write.set()

    model = compiled(run_eagerly=False)
    train(model, tmp_path, more=[Snapshots()], writer=CheckpointWriter, every_steps=2)
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


def test_failed_saves_in_a_row_end_fit(tmp_path, caplog):
    (tmp_path / "checkpoints").write_text("in the way")
    with pytest.raises(SavesFailed, match="3 saves in a row failed"):
        train(compiled(), tmp_path / "checkpoints", every_steps=1)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize(("step", "steps_per_execution", "saved_at"), [(2, 3, 3), (6, 1, 6)])
def test_signal_saves_after_the_current_call_and_ends_fit(
    tmp_path, step, steps_per_execution, saved_at
):
    class Signal(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch + 1 >= step:
                os.kill(os.getpid(), signal.SIGTERM)
                while signals.received is None:
                    time.sleep(0.001)

    with SignalWatch("stopping") as signals, pytest.raises(Interrupted, match="SIGTERM") as raised:
        train(
            compiled(steps_per_execution=steps_per_execution),
            tmp_path,
            more=[Signal()],
            signals=signals,
            writer=CheckpointWriter,
        )
    assert (raised.value.epoch, raised.value.step, raised.value.saved) == (0, saved_at, True)
    assert positions(tmp_path) == [(0, saved_at)]


@pytest.mark.parametrize(("steps_per_execution", "step", "saved"), [(1, 4, True), (3, 3, False)])
def test_signal_during_a_stalled_batch_ends_the_run(
    tmp_path, monkeypatch, steps_per_execution, step, saved
):
    """The watchdog's thread saves the last step, but only ends the run within a call of several."""
    monkeypatch.setattr(input_watchdog, "_TICK", 0.1)
    monkeypatch.setattr(checkpoint_module, "_STALLED", 0.3)
    monkeypatch.setattr(checkpoint_module, "_STALLED_UNSAVED", 0.3)
    comes, ended, seen, signals = threading.Event(), [], {}, SignalWatch("")

    def number(index):
        if index == 4:
            comes.wait(HANG)
        return index

    def on_stall(seconds, still_waiting):
        if step not in seen:  # a busy machine is late with an earlier batch
            return
        signals.receive(signal.SIGTERM)  # comes while the batch is awaited
        # Nothing is done if the batch has come meanwhile.
        checkpoint.on_input_stall(seconds, lambda: False)
        checkpoint.on_input_stall(seconds, still_waiting)

    def end(stopped):
        ended.append((stopped.epoch, stopped.step, stopped.saved, positions(tmp_path)))
        comes.set()  # here the process continues

    class Snapshots(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen[batch + 1] = {
                name: array.copy() for name, array in model_arrays(self.model).items()
            }

    numbers = tf.data.Dataset.range(STEPS).map(
        lambda index: tf.numpy_function(number, [index], tf.int64)
    )
    watch = InputWatchdog(pytest.fail, HANG, on_stall)
    batches = watch.watch(
        tf.data.Dataset.zip(numbers, tiny.dataset(STEPS)).map(lambda _, views: views)
    )
    checkpoint = Checkpoint(CheckpointWriter(tmp_path, 99), lambda: {"rows": []}, signals, end=end)
    try:
        with watch, pytest.raises(Interrupted):
            compiled(steps_per_execution=steps_per_execution).fit(
                batches,
                steps_per_epoch=STEPS,
                callbacks=[Snapshots(), checkpoint],
                verbose=0,
                shuffle=False,
            )
    finally:
        comes.set()  # deleting the iterator would wait for a batch that never comes
    assert ended == [(0, step, saved, [(0, step)] * saved)]
    if saved:
        shutil.rmtree(tmp_path / "epoch-0000-step-000005")  # of the step that the batch was for
        checkpoint, _ = read_newest(tmp_path)
        assert_same(checkpoint.arrays, seen[step])
        assert set(checkpoint.state) == {"rows", "logs", "means"}


def test_signal_during_a_hanging_save_ends_the_run(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    answers, ended, signals = threading.Event(), [], SignalWatch("")
    monkeypatch.setattr(os, "fsync", lambda descriptor: answers.wait(HANG))

    def end(stopped):
        ended.append((stopped.exit_code, stopped.epoch, stopped.step, stopped.saved))
        answers.set()

    signal_at_4 = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batch + 1 == 4 and signals.receive(signal.SIGTERM)
    )
    writer = CheckpointWriter(tmp_path, 99, patience=0.1)
    with pytest.raises(Interrupted):
        train(
            compiled(),
            tmp_path,
            more=[signal_at_4],
            signals=signals,
            writer=lambda *_: writer,
            every_steps=2,
            end=end,
        )
    assert ended == [(143, 0, 4, False)]
    assert (
        "the save hangs; none was written before it since this process started" in caplog.messages
    )
    assert positions(tmp_path) == [(0, 2), (0, 4)]


def test_loss_scale_of_float16_is_restored(tmp_path):
    """With its count of steps: it has changed at the checkpoint, and changes within 2 steps."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = compiled()
    model.optimizer.dynamic_growth_steps = 3  # not 2,000

    def scale(arrays):
        return [
            float(array)
            for name, array in arrays.items()
            if "dynamic_scale" in name or "step_counter" in name
        ]

    train(model, tmp_path, every_steps=4)
    end = scale(model_arrays(model))
    shutil.rmtree(tmp_path / "epoch-0001")
    within, _ = read_newest(tmp_path)
    assert scale(within.arrays)[1] != model.optimizer.initial_scale
    assert scale(within.arrays) != end
    restore_model(model, within.arrays)
    model.fit(tiny.dataset(STEPS).skip(4), verbose=0, shuffle=False)
    assert scale(model_arrays(model)) == end


def test_adapted_normalization_is_restored_with_its_constants():
    def model() -> BYOL:
        layer = keras.layers.Normalization(axis=-1)
        images = keras.Input((tiny.SIZE, tiny.SIZE, 3))
        x = keras.layers.Conv2D(tiny.FEATURES, 3)(layer(images))
        encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
        heads = (
            keras.Sequential([keras.Input((size,)), keras.layers.Dense(4)])
            for size in (tiny.FEATURES, 4)
        )
        model = BYOL(encoder, *heads, tau=1.0)
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        return model

    trained, resumed = model(), model()
    batch = tiny.views(1)[0][0]
    set_weights(trained.encoder.layers[1], [np.full(3, 5.0), np.full(3, 9.0), np.array(1)])
    trained.reset_target()
    restore_model(resumed, model_arrays(trained))
    np.testing.assert_array_equal(resumed.encoder(batch), trained.encoder(batch))
    np.testing.assert_array_equal(resumed.target_encoder(batch), trained.target_encoder(batch))


class Scale(keras.layers.Layer):
    """A layer whose weight has no name, as ConvNeXt's in `keras.applications`: variable_12."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return x * self.scale


def test_weights_without_names_are_restored_beside_other_models():
    def model() -> BYOL:
        images = keras.Input((tiny.SIZE, tiny.SIZE, 3))
        x = Scale()(keras.layers.Conv2D(tiny.FEATURES, 3)(images))
        encoder = keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
        heads = (
            keras.Sequential([keras.Input((size,)), keras.layers.Dense(4)])
            for size in (tiny.FEATURES, 4)
        )
        model = BYOL(encoder, *heads, target="online")
        model.compile(keras.optimizers.Adam(0.1), jit_compile=False)
        return model

    trained, resumed = model(), model()
    assert [each.path for each in trained.variables] != [each.path for each in resumed.variables]
    arrays = {name: array + 1 for name, array in model_arrays(trained).items()}
    restore_model(resumed, arrays)
    for one, other in zip(model_arrays(resumed).values(), arrays.values(), strict=True):
        np.testing.assert_array_equal(one, other)
