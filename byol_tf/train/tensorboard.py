"""TensorBoard events of a run, which a full disk can neither end nor tear."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf


class EventLog:
    """Writes events; what the disk doesn't take is kept and comes with the next, in a new file.

    TensorFlow leaves half an event where the disk was full, and a reader stops there. So the file
    is cut to its last whole event.

    Args:
        folder: of the event files.
        say: prints a line for people.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = print):
        self.folder, self.say = folder, say
        self._writer = None
        self._earlier: set[Path] = set()  # files that aren't the open one
        self._whole = 0  # bytes of the open one that are known to be whole events
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self._failed = False

    def add(self, step: int, write: Callable[[], object]) -> None:
        """Writes the events of a step, and those that wait.

        Args:
            step: of the axis that they are drawn over.
            write: calls `tf.summary` functions; again, if they couldn't be written.
        """
        self._waiting.append((step, write))
        try:
            if self._writer is None:
                self._open()
            for each, waiting in self._waiting:
                with self._writer.as_default(step=each):
                    waiting()
            self._writer.flush()
            self._whole = max(
                (path.stat().st_size for path in self._files()), default=0
            )  # none where somebody removed it
        except (OSError, tf.errors.OpError) as error:
            if not self._failed:
                self.say(
                    f"warning: {self.folder}: events not written: {_told(error)}. The run goes on, "
                    "and they come with the next"
                )
            self._failed = True
            self._abandon()
            return
        self._failed = False
        self._waiting.clear()

    def close(self) -> None:
        """Closes the file; what still waits is lost."""
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError):
                self._writer.close()
            self._writer = None

    def _open(self) -> None:
        self._earlier, self._whole = set(), 0
        self._earlier = self._files()
        self._writer = tf.summary.create_file_writer(str(self.folder))

    def _files(self) -> set[Path]:
        """The open file, alone; TensorFlow chooses its name. None before it is made."""
        return set(self.folder.glob("events.*")) - self._earlier

    def _abandon(self) -> None:
        """Closes the file without what it didn't take whole."""
        self.close()
        with contextlib.suppress(OSError):
            for path in self._files():
                if self._whole:
                    os.truncate(path, self._whole)
                else:
                    path.unlink()


def _told(error: Exception) -> str:
    """An error in one line, without the name that TensorFlow gives to the operation."""
    return re.sub(r"^\{\{.*?\}\} ", "", str(error).splitlines()[0])
