"""Background writer of checkpoints: one thread, one checkpoint at a time, while training runs."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_tf.errors import RunFolderError, SavesFailed
from byol_tf.runs.best_epoch import scores
from byol_tf.runs.checkpoints import remove_old, verify, write_checkpoint
from byol_tf.runs.idle_timer import IdleTimer

MAX_FAILURES = 3
"""Consecutive failed saves that end a run: one may have a passing cause, but a run that can't save
trains for nothing."""
PATIENCE = 300.0
"""Seconds without progress after which a save counts as hanging."""
_WARN_AFTER = 60.0
"""Seconds without progress after which that is logged."""
_RETRY_DELAY = 2.0
"""Seconds before a last save is tried again: a scheduler that stops a run mostly allows 30."""
_POLL_INTERVAL = 0.5

logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes checkpoints in the background and removes old ones.

    A failed save, on a full disk say, is logged, and the next checkpoint is another try; the third
    failure in a row ends the run, by `check`. A disk that doesn't answer makes a save hang, which
    is logged; no other save starts meanwhile. A save that makes progress doesn't hang, however slow
    the disk is, and time in which this process was stopped doesn't count.

    Args:
        folder: of all checkpoints. No other process writes there.
        keep: how many of the newest valid checkpoints are kept, at least two. The one with the
            highest `metric` is kept too.
        patience: seconds in which no byte is written, after which a save counts as hanging.
        check_owner: raises `RunFolderError` if another process has taken over the run. Then
            nothing is written, and `write`, `finish` and `check` raise that error.
        metric: column of the run's history.

    Attributes:
        failures: consecutive failed saves, up to the last one. Call `wait` first.
        newest: the last checkpoint that this writer completed; None before there is one.
        awaited: whether a thread is waiting for the save to end.
        on_hang: called repeatedly while a thread waits for a save that hangs. It may end the
            process; nothing else would.
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        patience: float = PATIENCE,
        check_owner: Callable[[], object] = lambda: None,
        metric: str = "probe_accuracy",
    ):
        self.folder, self.keep, self.metric = folder, keep, metric
        self.patience, self.check_owner = patience, check_owner
        self.failures = 0
        self.newest: Path | None = None
        self.awaited = False
        self.on_hang: Callable[[], None] = lambda: None
        self._progress, self._idle = 0, IdleTimer()
        self._hang_reported = False
        self._error: Exception | None = None
        self._taken_over: RunFolderError | None = None
        self._last_arguments: tuple[Any, ...] = ()  # of `write`; empty once they are written
        self._thread: threading.Thread | None = None
        self._is_valid: dict[Path, bool] = {}

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def hangs(self) -> bool:
        """True if the current save has made no progress for so long that its disk may be gone."""
        return self.busy and self._idle.look(self._progress) >= self.patience

    @property
    def failed(self) -> bool:
        """True if the last save failed. Call `wait` first."""
        return self.failures > 0 or self._taken_over is not None

    def write(
        self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
    ) -> None:
        """Starts to write a checkpoint, once the one before it is done.

        Args:
            epoch: completed epochs.
            step: completed steps of the next epoch.
            arrays: name -> variable; belong to the writer, so nothing may change them afterwards.
            state: JSON types; likewise. `rows` are those of the run's history, with `metric`
                where it was measured.

        Raises:
            RunFolderError: if another process has taken over the run.
        """
        self.wait()
        self._check_taken_over()
        self._last_arguments = (epoch, step, arrays, state)
        self._note_progress()
        self._idle.look(self._progress)
        # Not a daemon: a process that ends by an exception still completes the save.
        self._thread = threading.Thread(
            target=self._write, args=self._last_arguments, name="checkpoint"
        )
        try:
            self._thread.start()
        except RuntimeError as error:  # the system gives no more threads
            self._thread = None
            self._record_failure(error)

    def wait(self) -> None:
        """Returns when no checkpoint is being written."""
        self.awaited = True
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(_POLL_INTERVAL)
            self._report_idle()
            if self.hangs:
                self.on_hang()
        self._thread, self.awaited = None, False

    def finish(self) -> None:
        """Returns when the last checkpoint is written, or has failed as often as is allowed.

        It is tried again here, as no later checkpoint would replace it.

        Raises:
            RunFolderError: as `write`.
        """
        self.wait()
        while 0 < self.failures < MAX_FAILURES:
            time.sleep(_RETRY_DELAY)
            self.write(*self._last_arguments)
            self.wait()
        self._check_taken_over()

    def check(self) -> None:
        """Logs a save that makes no progress, once; to be called often.

        Raises:
            SavesFailed: if too many saves in a row have failed.
            RunFolderError: as `write`.
        """
        self._report_idle()
        self._check_taken_over()
        if self.failures >= MAX_FAILURES:
            raise SavesFailed(
                f"{self.failures} saves in a row failed: {_reason(self._error)}. The checkpoints "
                "before them are unchanged"
            )

    def _note_progress(self) -> None:
        self._progress += 1

    def _check_taken_over(self) -> None:
        if self._taken_over is not None:
            raise self._taken_over

    def _write(
        self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
    ) -> None:
        try:
            path = write_checkpoint(
                self.folder, epoch, step, arrays, state, self._note_progress, self.check_owner
            )
            self._is_valid[path], self.newest = True, path
        except RunFolderError as error:
            self._taken_over = error
            return
        # Of any type: an exception in a thread would end nothing, and the save would look done.
        except Exception as error:
            self._record_failure(error)
            return
        recovered, self.failures, self._last_arguments = self.failed, 0, ()
        if recovered:
            logger.info("checkpoints are written again")
        with contextlib.suppress(OSError):  # they are removed after the next save
            remove_old(self.folder, self.keep, self._verified, scores(state["rows"], self.metric))

    def _report_idle(self) -> None:
        idle = self._idle.look(self._progress) if self.busy else 0.0
        if idle >= min(_WARN_AFTER, self.patience) and not self._hang_reported:
            self._hang_reported = True
            logger.warning(
                "a save into %s has made no progress for %.0f s. Is that disk still mounted?",
                self.folder,
                idle,
            )
        elif idle == 0.0 and self._hang_reported:
            self._hang_reported = False
            logger.info("the disk of %s answers again", self.folder)

    def _record_failure(self, error: Exception) -> None:
        self.failures, self._error = self.failures + 1, error
        if self.failures < MAX_FAILURES:
            logger.warning(
                "checkpoint not written: %s. The run continues and tries again at the next one; "
                "it ends when %d in a row fail",
                _reason(error),
                MAX_FAILURES,
            )

    def _verified(self, path: Path) -> bool:
        """Returns whether a checkpoint is valid; one of an earlier process is read once."""
        if path not in self._is_valid:
            try:
                verify(path, self._note_progress)
                self._is_valid[path] = True
            except Exception:  # whatever the cause, this one can't be relied on
                self._is_valid[path] = False
        return self._is_valid[path]


def _reason(error: Exception | None) -> str:
    return str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
