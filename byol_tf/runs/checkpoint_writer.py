"""Checkpoints are written while training goes on: one thread, at most one of them at a time. Needs
no TensorFlow."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_tf.errors import SavesFailed
from byol_tf.runs.checkpoints import remove_old, verify, write_checkpoint

MOST_FAILURES = 3
"""Saves in a row that may fail before a run ends: one may be a moment's trouble, and a run that
can't save learns for nothing."""
SLOW = 60.0
"""Seconds after which a save counts as one that hangs, if it also takes three times as long as any
before it."""
_PAUSE = 2.0
"""Seconds before a last save is tried again: a scheduler that wants a run to end mostly gives it
30."""
_TICK = 0.5


class CheckpointWriter:
    """Writes checkpoints in the background, and removes old ones.

    A failure, such as a full disk, is said and the next checkpoint is another try; the third in a
    row ends the run, by `check`. A disk that doesn't answer fails nothing: a save hangs there, and
    none is begun meanwhile. That is said too.

    Args:
        folder: of all checkpoints. Nobody else writes there.
        keep: how many of the newest whole ones stay, at least two; and the best by probe.
        say: prints a line for people. May be called from the writing thread.

    Attributes:
        failures: how many of the last saves failed, in a row. Wait first.
        newest: the last checkpoint that this writer wrote whole; None before there is one.
        awaited: whether somebody waits until all is written.
        hung: called again and again while a save is awaited that hangs. It may end the process;
            nothing else would.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]):
        self.folder, self.keep, self.say = folder, keep, say
        self.failures = 0
        self.newest: Path | None = None
        self.awaited = False
        self.hung: Callable[[], None] = lambda: None
        self._began = self._longest = 0.0
        self._told = False
        self._error: Exception | None = None
        self._last: tuple = ()
        self._thread: threading.Thread | None = None
        self._whole: dict[Path, bool] = {}

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def hangs(self) -> bool:
        """Whether the one that is being written takes so long that its disk may be gone."""
        return self.busy and time.monotonic() - self._began > max(SLOW, 3 * self._longest)

    @property
    def failed(self) -> bool:
        """Whether the last one couldn't be written. Wait first."""
        return self.failures > 0

    def write(
        self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
    ) -> None:
        """Begins to write a checkpoint, after the one before it.

        Args:
            epoch, step: whole epochs done, and steps of the next.
            arrays: the writer's own; nobody changes them afterwards.
            state: likewise, JSON types. `rows` are the run's, with `probe_accuracy` where an epoch
                was probed.
        """
        self.wait()
        self._last = (epoch, step, arrays, state)
        self._began, self._told = time.monotonic(), False
        # Not a daemon: a process that ends by an error still finishes what it began to write.
        self._thread = threading.Thread(target=self._write, args=self._last, name="checkpoint")
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._thread = None
            self._fail(error)

    def wait(self) -> None:
        """Returns when nothing is being written."""
        self.awaited = True
        while self.busy:
            self._thread.join(_TICK)
            self._look()
            if self.hangs:
                self.hung()
        self._thread, self.awaited = None, False

    def finish(self) -> None:
        """Returns when the last checkpoint is written, or failed as often as may be in a row: no
        later one would make up for it."""
        self.wait()
        while 0 < self.failures < MOST_FAILURES:
            time.sleep(_PAUSE)
            self.write(*self._last)
            self.wait()

    def check(self) -> None:
        """Raises `SavesFailed` if too many failed in a row, and says once if one hangs; to be
        called often."""
        self._look()
        if self.failures >= MOST_FAILURES:
            raise SavesFailed(
                f"{self.failures} saves in a row failed: {_told(self._error)}. The checkpoints "
                "before them are as they were"
            )

    def _write(
        self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
    ) -> None:
        try:
            path = write_checkpoint(self.folder, epoch, step, arrays, state)
            self._whole[path], self.newest = True, path
        # a thread's error would end nothing and be seen by nobody; and it mustn't pass for a save
        except Exception as error:
            self._fail(error)
            return
        self._longest = max(self._longest, time.monotonic() - self._began)
        failed, self.failures, self._last = self.failed, 0, ()
        if failed:
            self.say("checkpoints are written again")
        scores = {
            row["epoch"]: row["probe_accuracy"] for row in state["rows"] if "probe_accuracy" in row
        }
        with contextlib.suppress(OSError):  # they may go after the next save
            remove_old(self.folder, self.keep, self._is_whole, scores)

    def _look(self) -> None:
        if self.hangs and not self._told:
            self._told = True
            seconds = time.monotonic() - self._began
            self.say(
                f"warning: a save into {self.folder} has taken {seconds:.0f} s and isn't done. Is "
                "that disk still there?"
            )

    def _fail(self, error: Exception) -> None:
        self.failures, self._error = self.failures + 1, error
        if self.failures < MOST_FAILURES:
            self.say(
                f"warning: checkpoint not written: {_told(error)}. The run goes on, and tries "
                "again at the next one; "
                f"it ends when {MOST_FAILURES} in a row fail"
            )

    def _is_whole(self, path: Path) -> bool:
        """Whether its bytes are those that were written. One of an earlier process is read once to
        know."""
        if path not in self._whole:
            try:
                verify(path)
                self._whole[path] = True
            except Exception:  # whatever it is, this one isn't to be counted on
                self._whole[path] = False
        return self._whole[path]


def _told(error: Exception | None) -> str:
    """An error in one line."""
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
