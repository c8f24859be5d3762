"""Input that never arrives, and input that is only slow."""

import threading
import time

import keras
import pytest
import tensorflow as tf

from byol_tf.train import input_watchdog
from byol_tf.train.input_watchdog import InputWatchdog
from tests.helpers.waiting import HANG


class Stalls(list):
    """The stalls that a watchdog reported, in seconds of waiting."""

    def __init__(self):
        super().__init__()
        self.reported = threading.Event()

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        self.reported.set()


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch):
    monkeypatch.setattr(input_watchdog, "_TICK", 0.05)


@pytest.fixture
def idle(monkeypatch):
    """This process uses no CPU time that the watchdog sees: other threads of the tests may."""
    monkeypatch.setattr(input_watchdog.time, "process_time", lambda: 0.0)


def blocking_batches(block_at: int, released: threading.Event) -> tf.data.Dataset:
    """Batches of which one isn't read before `released` is set."""

    def read(index):
        if index == block_at:
            released.wait(HANG)
        return index

    return tf.data.Dataset.range(9).map(
        lambda index: tf.ensure_shape(tf.numpy_function(read, [index], tf.int64), ())
    )


def test_watched_batches_are_unchanged():
    batches = tf.data.Dataset.range(8).map(lambda x: (tf.fill([2, 3], x), {"id": x}))
    watched = InputWatchdog(pytest.fail).watch(batches)
    assert watched.element_spec == batches.element_spec
    pairs = zip(watched.as_numpy_iterator(), batches.as_numpy_iterator(), strict=True)
    assert all((one[0] == other[0]).all() and one[1] == other[1] for one, other in pairs)


def test_times_are_those_of_request_and_arrival():
    released = threading.Event()
    watchdog = InputWatchdog(pytest.fail)
    iterator = iter(watchdog.watch(blocking_batches(1, released)))
    next(iterator)
    released_at = time.perf_counter()
    released.set()
    next(iterator)
    first, second = watchdog.pop_times(2)
    # tf.data may request the second batch before it is asked for it.
    assert first[0] <= first[1] <= second[0] <= second[1]
    assert second[1] >= released_at
    next(iterator)
    assert len(watchdog.pop_times(1)) == 1


@pytest.mark.parametrize("prefetch", [False, True])
def test_batch_that_never_arrives_is_reported_once(idle, prefetch):
    released, stalls = threading.Event(), Stalls()
    batches = blocking_batches(3, released)
    watchdog = InputWatchdog(stalls, patience=0.2)
    iterator = iter(watchdog.watch(batches.prefetch(2) if prefetch else batches))
    with watchdog:
        reader = threading.Thread(target=lambda: [next(iterator) for _ in range(5)])
        reader.start()
        assert stalls.reported.wait(HANG)
        time.sleep(0.5)  # ten more looks
        released.set()
        reader.join()
    assert stalls == [pytest.approx(0.2)]


def test_wait_is_reported_in_each_tick_until_the_arrival(idle):
    released, seen = threading.Event(), []

    def while_waiting(seconds, still_waiting):
        seen.append((seconds, still_waiting()))
        if len(seen) == 3:
            released.set()

    watchdog = InputWatchdog(pytest.fail, 1000.0, while_waiting)
    iterator = iter(watchdog.watch(blocking_batches(0, released)))
    with watchdog:
        next(iterator)
    assert [pytest.approx(0.05 * count) for count in (1, 2, 3)] == [
        seconds for seconds, _ in seen[:3]
    ]
    assert all(waiting for _, waiting in seen[:3])


def test_batch_that_nobody_requested_is_not_waited_for(idle):
    watchdog = InputWatchdog(pytest.fail, patience=0.2)
    iterator = iter(watchdog.watch(blocking_batches(9, threading.Event())))
    with watchdog:
        next(iterator)
        time.sleep(1.0)


def test_batch_that_takes_long_to_compute_is_not_reported(monkeypatch):
    """The process is seen busy in every tick."""
    busy_seconds = iter(range(10**9))
    monkeypatch.setattr(input_watchdog.time, "process_time", lambda: float(next(busy_seconds)))
    released = threading.Event()
    watchdog = InputWatchdog(pytest.fail, patience=0.2)
    threading.Timer(1.0, released.set).start()
    with watchdog:
        next(iter(watchdog.watch(blocking_batches(0, released))))


def test_epoch_end_that_stalls_is_reported(idle):
    """A probe's images may be on the disk that is gone."""
    stalls = Stalls()
    watchdog = InputWatchdog(stalls, patience=0.2)
    probe = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: stalls.reported.wait(HANG))
    with watchdog:
        time.sleep(0.5)  # before it, nothing is waited for
        assert stalls == []
        for callback in watchdog.with_epoch_ends([probe]):
            callback.on_epoch_end(0)
    assert stalls == [pytest.approx(0.2)]
