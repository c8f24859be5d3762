"""Batches that never come, and batches that are only slow."""

import threading
import time

import keras
import pytest
import tensorflow as tf

from byol_tf.train.input_watchdog import StuckInput


def watched(
    patience: float, batches: tf.data.Dataset
) -> tuple[StuckInput, tf.data.Dataset, list[float]]:
    noticed: list[float] = []
    watch = StuckInput(noticed.append, patience)
    return watch, watch.around(batches), noticed


def test_batches_are_what_they_were():
    batches = tf.data.Dataset.range(8).map(lambda x: (tf.fill([2, 3], x), {"id": x}))
    _, around, _ = watched(1.0, batches)
    assert around.element_spec == batches.element_spec
    pairs = zip(around.as_numpy_iterator(), batches.as_numpy_iterator(), strict=True)
    assert all((one[0] == other[0]).all() and one[1] == other[1] for one, other in pairs)


@pytest.mark.parametrize("ahead", [False, True])
def test_one_that_never_comes_is_noticed_once(ahead):
    never = threading.Event()

    def read(number):
        if number == 3:
            never.wait(30)
        return number

    batches = tf.data.Dataset.range(9).map(
        lambda x: tf.ensure_shape(tf.numpy_function(read, [x], tf.int64), ())
    )
    watch, around, noticed = watched(3.0, batches.prefetch(2) if ahead else batches)
    iterator = iter(around)
    with watch:
        taken = threading.Thread(target=lambda: [next(iterator) for _ in range(5)])
        taken.start()
        time.sleep(6.5)
        assert noticed == [3.0]
        never.set()
        taken.join()


def test_slow_ones_and_ones_that_nobody_asks_for_are_not():
    def read(number):
        time.sleep(2.0)
        return number

    watch, around, noticed = watched(
        3.0, tf.data.Dataset.range(9).map(lambda x: tf.numpy_function(read, [x], tf.int64))
    )
    iterator = iter(around)
    with watch:
        for _ in range(2):
            next(iterator)
        time.sleep(4.0)
    assert not noticed


def test_one_that_takes_long_to_be_computed_is_not():
    def read(number):
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            pass
        return number

    watch, around, noticed = watched(
        2.0, tf.data.Dataset.range(9).map(lambda x: tf.numpy_function(read, [x], tf.int64))
    )
    with watch:
        next(iter(around))
    assert not noticed


def test_an_epochs_end_that_waits_is_noticed():
    """A probe's images may be on the disk that is gone; and before and after it nothing is
    awaited."""
    noticed: list[float] = []
    watch = StuckInput(noticed.append, 1.0)
    probe = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: time.sleep(3.5))
    with watch:
        time.sleep(2.5)
        assert noticed == []
        for callback in watch.with_epoch_ends([probe]):
            callback.on_epoch_end(0)
    assert noticed == [1.0]
    assert watch._asked == watch._came == 1
