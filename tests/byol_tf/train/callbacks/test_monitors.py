"""A run whose input is too slow says so once; one whose input is fast enough doesn't."""

import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.train.callbacks.monitors import InputWatch, StepWatch
from tests.helpers import tiny

BATCH = 16


def said(
    seconds: float, batches: int, batch_size: int = BATCH, hiccup: int | None = None, steps: int = 1
) -> list[str]:
    """What is said in a run whose input takes so long for each batch; for the batch `hiccup` it
    takes three seconds."""
    lines = []
    model = tiny.model()
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False, steps_per_execution=steps)
    views = [view[0] for view in tiny.views(1, batch_size)]

    def slow(index):
        time.sleep(3.0 if index == hiccup else seconds)
        return np.int64(index)

    data = tf.data.Dataset.range(batches)
    if seconds or hiccup is not None:
        data = data.map(
            lambda index: tf.ensure_shape(tf.numpy_function(slow, [index], tf.int64), ())
        )
    data = data.map(lambda _: tuple(map(tf.constant, views)))
    callbacks = [
        TargetUpdate(constant_tau(0.9)),
        InputWatch(batch_size, "photos made smaller", lines.append),
    ]
    model.fit(data, callbacks=callbacks, verbose=0, shuffle=False)
    return lines


@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_slow_input_is_said_once_with_the_figures(steps):
    (line,) = said(0.05, 330 if steps > 1 else 135, steps=steps)
    waits, given, taken = (
        float(number.replace(",", ""))
        for number in re.findall(r"([\d,]+)(?:%| images|\. More)", line)[:3]
    )
    assert waits > 33
    assert (
        ". More cores would help, or less to do for each image: photos made smaller. --dry-run"
        in line
    )
    assert given == pytest.approx(BATCH / 0.05, rel=0.35)
    assert taken > given


@pytest.mark.long
def test_a_fast_input_or_one_hiccup_is_not():
    assert said(0.0, 1500, 256) == []
    assert said(0.0, 1500, 256, hiccup=300) == []


class Jumps(tiny.BYOL):
    """Its loss is ten times as large at some steps (1 is the first)."""

    at = (50, 151)

    def loss_and_gradients(self, views):
        measures, gradients = super().loss_and_gradients(views)
        jumps = tf.reduce_any(
            self.optimizer.iterations.value + 1
            == tf.constant(self.at, self.optimizer.iterations.value.dtype)
        )
        return measures | {"loss": tf.where(jumps, 10.0, 1.0) * measures["loss"]}, gradients


def test_what_is_said(monkeypatch):
    monkeypatch.setattr(tiny, "BYOL", Jumps)
    lines = []
    model = tiny.model(on_nonfinite="skip")
    model.compile(keras.optimizers.SGD(1e-4), jit_compile=False, steps_per_execution=3)
    first, second = tiny.views(180, 8)
    for batch in (3, 5, 169):
        first[batch, 0, 0, 0, 0] = np.nan
    data = tf.data.Dataset.from_tensor_slices((first, second))
    history = model.fit(
        data.repeat(),
        epochs=2,
        steps_per_epoch=90,
        verbose=0,
        shuffle=False,
        callbacks=[TargetUpdate(constant_tau(0.9)), StepWatch(lines.append)],
    ).history
    assert history["skipped_steps"] == [2, 3]
    assert [line.split(",")[0].split(":")[0] for line in lines] == [
        "step 4 left out",
        "2 steps of epoch 1 were left out",
        # The optimizer's 151st step, as two were left out before it. At its 50th there were fewer
        # than 100 to be held against.
        "the loss jumped at step 153",
        "step 170 left out",
    ]
