"""A run folder is written by one process at a time. Needs no TensorFlow."""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from byol_tf.run_folder import LOCK_NAME, RunFolderError

_BEAT = 20.0
"""Seconds after which a process says again that it lives, to those on other machines that share the disk."""
_DEAD_AFTER = 6 * _BEAT


class RunLock:
    """Holds a run folder for this process while it is entered.

    The system's own lock on the file `.lock` says whether a process of this machine lives; it goes with the process. The file names
    process, machine and time. A process on another machine counts as dead when it hasn't touched the file for two minutes. The file stays,
    emptied: to remove it could remove that of the next process.

    Args:
        root: the run folder.

    Raises:
        RunFolderError: from `check` and on entering, if a living process holds it (its text names that process) or it can't be written.
    """

    def __init__(self, root: Path):
        self.path = Path(root) / LOCK_NAME
        self._descriptor: int | None = None

    def check(self) -> None:
        """Raises if the folder is in use; writes nothing."""
        if self.path.exists():
            with self._writable(), self.path.open("r+b") as file:  # a network disk locks only what may be written
                self._claim(file.fileno())  # given back with the file

    def __enter__(self) -> "RunLock":
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": _boot(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        with self._writable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._claim(self._descriptor)
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(owner).encode(), 0)
            except (OSError, RunFolderError):
                os.close(self._descriptor)
                raise
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            with contextlib.suppress(OSError):  # a disk that comes back is touched the next time
                os.utime(self.path)

    def _claim(self, descriptor: int) -> None:
        """Takes the system's lock on an open file, where no living process holds it or wrote itself into it."""
        owner = _owner(os.pread(descriptor, 1000, 0))
        # The same boot of the same kernel: the system's lock tells. A container that is started again has another host name.
        known = owner.get("host") == socket.gethostname() or owner.get("boot", "") == _boot() != ""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use(owner) from None
        except OSError:  # a disk without locks
            known = False
        if owner and not known and time.time() - os.fstat(descriptor).st_mtime < _DEAD_AFTER:
            raise self._in_use(owner)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(f"{self.path.parent}: expected a folder that can be written; received {error}") from error

    def _in_use(self, owner: dict) -> RunFolderError:
        who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since {owner.get('started', '?')}"
        return RunFolderError(
            f"{self.path.parent}: expected a run that no process is at; in use by {who}. Wait for it, or end it (SIGTERM saves first); "
            "--fresh begins another run"
        )


def _boot() -> str:
    """What the running kernel calls its start; empty where there is no such name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _owner(content: bytes) -> dict:
    try:
        owner = json.loads(content)
    except ValueError:  # empty, or its process died while it wrote
        return {}
    return owner if isinstance(owner, dict) else {}
