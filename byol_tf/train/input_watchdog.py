"""Images that never come: a disk or a file that doesn't answer."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

PATIENCE = 45.0
"""Seconds that a batch may be awaited while this process does nothing else."""
_TICK = 1.0
_IDLE = 0.05


class StuckInput:
    """Notices that a batch was asked for and doesn't come, while this process does nothing.

    A slow input still decodes, copies or computes: as long as the process takes more than a
    twentieth of one core's time in one of six seconds, nothing is noticed, however long a batch
    takes.

    Args:
        noticed: called once, from a thread, with how many seconds the step's batch has been
            awaited.
        patience: seconds.
        each: called from that thread in each second of the wait, with its seconds so far and a
            function that tells whether it goes on; None calls nothing.
    """

    def __init__(
        self,
        noticed: Callable[[float], None],
        patience: float = PATIENCE,
        each: Callable[[float, Callable[[], bool]], object] | None = None,
    ):
        self.noticed, self.patience, self.each = noticed, patience, each
        self._asked = self._came = 0
        self._counting = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> "StuckInput":
        threading.Thread(target=self._watch, name="input", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """While this is entered, what it does counts as one batch that was asked for."""
        self._ask()
        try:
            yield
        finally:
            self._get()

    def with_epoch_ends(
        self, callbacks: list[keras.callbacks.Callback]
    ) -> list[keras.callbacks.Callback]:
        """The callbacks, between two that make what they do at an epoch's end count as one batch: a
        probe may wait for images too."""
        begins = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self._ask())
        ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: self._get())
        return [begins, *callbacks, ends]

    def _ask(self) -> None:
        with self._counting:
            self._asked += 1

    def _get(self) -> None:
        with self._counting:
            self._came += 1

    def around(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The same batches, each one's coming and going noted. For the last stage of an endless
        pipeline."""

        def asked(number):
            self._ask()
            return number

        def came(number):
            self._get()
            return number

        @tf.autograph.experimental.do_not_convert
        def note_asked(number):
            return tf.numpy_function(asked, [number], tf.int64)

        @tf.autograph.experimental.do_not_convert
        def note_came(number, batch):
            with tf.control_dependencies(
                [tf.numpy_function(came, [number], tf.int64), *tf.nest.flatten(batch)]
            ):
                return tf.nest.map_structure(tf.identity, batch)

        numbers = tf.data.Dataset.range(np.iinfo(np.int64).max).map(note_asked)
        return tf.data.Dataset.zip(numbers, batches).map(note_came)

    def _watch(self) -> None:
        waited, came, used, said = 0.0, self._came, time.process_time(), False
        while not self._over.wait(_TICK):
            now = time.process_time()
            busy = now - used > _IDLE * _TICK
            used = now
            # In ticks of this process, so that one that was stopped for a while doesn't count that.
            waited = (
                0.0
                if self._asked == self._came or came != self._came
                else max(0.0, waited - 5 * _TICK)
                if busy
                else waited + _TICK
            )
            came = self._came
            if waited >= self.patience and not said:
                said = True
                self.noticed(waited)
            if waited and self.each is not None:
                self.each(waited, lambda came=came: self._came == came)
