"""A run whose input is too slow says so once; one whose input is fast enough doesn't."""

import re
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.callbacks.input_watch import InputWatch
from byol_tf.target import TargetUpdate, constant_tau
from tests.byol_tf import tiny

BATCH = 16


def said(seconds: float, batches: int, batch_size: int = BATCH, hiccup: int | None = None, steps: int = 1) -> list[str]:
    """What is said in a run whose input takes so long for each batch; for the batch `hiccup` it takes three seconds."""
    lines = []
    model = tiny.model()
    model.compile(keras.optimizers.SGD(0.01), jit_compile=False, steps_per_execution=steps)
    views = [view[0] for view in tiny.views(1, batch_size)]

    def slow(index):
        time.sleep(3.0 if index == hiccup else seconds)
        return np.int64(index)

    data = tf.data.Dataset.range(batches)
    if seconds or hiccup is not None:
        data = data.map(lambda index: tf.ensure_shape(tf.numpy_function(slow, [index], tf.int64), ()))
    data = data.map(lambda _: tuple(map(tf.constant, views)))
    callbacks = [TargetUpdate(constant_tau(0.9)), InputWatch(batch_size, "photos made smaller", lines.append)]
    model.fit(data, callbacks=callbacks, verbose=0, shuffle=False)
    return lines


@pytest.mark.parametrize("steps", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_slow_input_is_said_once_with_the_figures(steps):
    (line,) = said(0.05, 330 if steps > 1 else 135, steps=steps)
    waits, given, taken = (float(number.replace(",", "")) for number in re.findall(r"([\d,]+)(?:%| images|\. More)", line)[:3])
    assert waits > 33
    assert ". More cores would help, or less to do for each image: photos made smaller. --dry-run" in line
    assert given == pytest.approx(BATCH / 0.05, rel=0.35)
    assert taken > given


@pytest.mark.long
def test_a_fast_input_or_one_hiccup_is_not():
    assert said(0.0, 1500, 256) == []
    assert said(0.0, 1500, 256, hiccup=300) == []
