"""Checkpoints are written while training goes on: one thread, at most one of them at a time. Needs no TensorFlow."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_tf.checkpoints import remove_old, verify, write_checkpoint


class CheckpointWriter:
    """Writes checkpoints in the background, and removes old ones.

    A failure, such as a full disk, ends no run: it is said once, and the next checkpoint is another try.

    Args:
        folder: of all checkpoints. Nobody else writes there.
        keep: how many of the newest whole ones stay, at least two; and the best by probe.
        say: prints a line for people. May be called from the writing thread.
    """

    def __init__(self, folder: Path, keep: int, say: Callable[[str], None]):
        self.folder, self.keep, self.say = folder, keep, say
        self._thread: threading.Thread | None = None
        self._failed = False
        self._whole: dict[Path, bool] = {}

    @property
    def busy(self) -> bool:
        """Whether one is being written."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether the last one couldn't be written. Wait first."""
        return self._failed

    def write(self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
        """Begins to write a checkpoint, after the one before it.

        Args:
            epoch, step: whole epochs done, and steps of the next.
            arrays: the writer's own; nobody changes them afterwards.
            state: likewise, JSON types. `rows` are the run's, with `probe_accuracy` where an epoch was probed.
        """
        self.wait()
        # Not a daemon: a process that ends by an error still finishes what it began to write.
        self._thread = threading.Thread(target=self._write, args=(epoch, step, arrays, state), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Returns when nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
        try:
            path = write_checkpoint(self.folder, epoch, step, arrays, state)
        except OSError as error:
            if not self._failed:
                self.say(f"warning: checkpoint not written: {error}. The run goes on, and tries again at the next one")
            self._failed = True
            return
        if self._failed:
            self.say("checkpoints are written again")
        self._failed = False
        self._whole[path] = True
        scores = {row["epoch"]: row["probe_accuracy"] for row in state["rows"] if "probe_accuracy" in row}
        remove_old(self.folder, self.keep, self._is_whole, scores)

    def _is_whole(self, path: Path) -> bool:
        """Whether its bytes are those that were written. One of an earlier process is read once to know."""
        if path not in self._whole:
            try:
                verify(path)
                self._whole[path] = True
            except (OSError, ValueError):
                self._whole[path] = False
        return self._whole[path]
