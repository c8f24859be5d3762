"""Watchdog of the input: batches that never arrive, and how long each was waited for."""

import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

PATIENCE = 45.0
"""Seconds that a batch is waited for, while this process is idle, before that is reported."""
_TICK = 1.0
_IDLE_FRACTION = 0.05


class InputWatchdog:
    """Notices that a batch was requested and doesn't arrive while this process is idle.

    Slow input still decodes, copies or computes: as long as the process uses more than a twentieth
    of one core's time in one of six seconds, nothing is reported, however long a batch takes.

    Two Python functions in the pipeline count each batch, in about 0.1 ms
    (`python -m benchmarks.input_watchdog`). One wouldn't do: where a call has several steps, a
    worker that waits for another one looks like one that waits for its disk, unless it is known
    that a batch was requested. TensorFlow's own health check doesn't notice stalled input.

    Args:
        on_stall: called once, from a thread, with the seconds that a batch has been waited for.
        patience: seconds of waiting after which `on_stall` is called.
        while_waiting: called from that thread in each second of waiting, with the seconds so far
            and a function that returns whether the wait continues; None for nothing.
    """

    def __init__(
        self,
        on_stall: Callable[[float], object],
        patience: float = PATIENCE,
        while_waiting: Callable[[float, Callable[[], bool]], object] | None = None,
    ) -> None:
        self.on_stall, self.patience, self.while_waiting = on_stall, patience, while_waiting
        self._requested = self._arrived = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._times: deque[list[float]] = deque()

    def __enter__(self) -> "InputWatchdog":
        threading.Thread(target=self._run, name="input", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._stopped.set()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts what is done inside as one batch that is waited for."""
        self._count_request()
        try:
            yield
        finally:
            self._count_arrival()

    def with_epoch_ends(
        self, callbacks: list[keras.callbacks.Callback]
    ) -> list[keras.callbacks.Callback]:
        """Returns the callbacks, with what they do at an epoch's end counted as one batch.

        A probe may wait for images too, and a checkpoint for the disk.
        """
        first = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self._count_request())
        last = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self._count_arrival())
        return [first, *callbacks, last]

    def watch(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Returns the same batches, each one counted; for the last stage of an endless pipeline."""

        def on_request(index: np.ndarray) -> np.ndarray:
            self._times.append([time.perf_counter()])
            self._count_request()
            return index

        def on_arrival(index: np.ndarray) -> np.ndarray:
            self._count_arrival()
            self._times[-1].append(time.perf_counter())
            return index

        @tf.autograph.experimental.do_not_convert
        def note_request(index: tf.Tensor) -> tf.Tensor:
            return tf.numpy_function(on_request, [index], tf.int64)

        @tf.autograph.experimental.do_not_convert
        def note_arrival(index: tf.Tensor, batch: Any) -> Any:
            noted = tf.numpy_function(on_arrival, [index], tf.int64)
            with tf.control_dependencies([noted, *tf.nest.flatten(batch)]):
                return tf.nest.map_structure(tf.identity, batch)

        # Elements are made one after the other: the index, hence the request, before its batch.
        indices = tf.data.Dataset.range(np.iinfo(np.int64).max).map(note_request)
        return tf.data.Dataset.zip(indices, batches).map(note_arrival)

    def pop_times(self, count: int) -> list[tuple[float, float]]:
        """Returns when each of the next `count` watched batches was requested and arrived.

        Args:
            count: number of batches that have arrived since the last call.

        Returns:
            Pairs of `time.perf_counter()`, in the order of the batches.
        """
        pairs = [self._times.popleft() for _ in range(count)]
        return [(requested, arrived) for requested, arrived in pairs]

    def _count_request(self) -> None:
        with self._lock:
            self._requested += 1

    def _count_arrival(self) -> None:
        with self._lock:
            self._arrived += 1

    def _run(self) -> None:
        waited, arrived, cpu_seconds, reported = 0.0, self._arrived, time.process_time(), False
        while not self._stopped.wait(_TICK):
            cpu_before, cpu_seconds = cpu_seconds, time.process_time()
            busy = cpu_seconds - cpu_before > _IDLE_FRACTION * _TICK
            # In ticks, not by the clock: time in which this process was stopped doesn't count.
            if self._requested == self._arrived or arrived != self._arrived:
                waited = 0.0
            elif busy:
                waited = max(0.0, waited - 5 * _TICK)
            else:
                waited += _TICK
            arrived = self._arrived
            if waited >= self.patience and not reported:
                reported = True
                self.on_stall(waited)
            if waited and self.while_waiting is not None:
                self.while_waiting(waited, functools.partial(self._still_waiting, arrived))

    def _still_waiting(self, arrived: int) -> bool:
        return self._arrived == arrived
