"""A run folder is written by one process at a time. Needs no TensorFlow."""

import contextlib
import datetime
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from byol_tf.errors import RunFolderError
from byol_tf.runs.folder import LOCK_NAME
from byol_tf.runs.process_exit import register_exit_hook, unregister_exit_hook

_BEAT = 20.0
"""Seconds after which a process says again that it lives, to those on other machines that share the
disk."""
_DEAD_AFTER = 6 * _BEAT


class RunLock:
    """Holds a run folder for this process while it is entered.

    The system's own lock on the file `.lock` says whether a process of this machine lives; it goes
    with the process. The file names process, machine and time. A process on another machine counts
    as dead when it hasn't touched the file for two minutes, and is waited for until then: a
    scheduler starts a run again on another machine as soon as the first is lost. The file stays,
    emptied: to remove it could remove that of the next process.

    Args:
        root: the run folder.
        say: prints a line for people, where one on another machine is waited for.

    Raises:
        RunFolderError: from `check` and on entering, if a living process holds it (its text names
            that process) or it can't be written. At once where that process is on this machine;
            else after two to four minutes.
    """

    def __init__(self, root: Path, say: Callable[[str], None] = print):
        self.path, self.say = Path(root) / LOCK_NAME, say
        self._descriptor: int | None = None
        self._leaving = threading.Lock()

    def check(self) -> None:
        """Raises if the folder is in use; writes nothing."""

        def claim() -> None:
            with self.path.open("r+b") as file:  # a network disk locks only what may be written
                self._claim(file.fileno())  # given back with the file

        with self._writable():
            if self.path.exists():
                self._retry_until_stale(claim)

    def __enter__(self) -> "RunLock":
        with self._writable():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._retry_until_stale(self._taken)
        register_exit_hook(self._empty)
        self._over = threading.Event()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        unregister_exit_hook(self._empty)
        self._empty()
        with self._leaving:
            os.close(self._descriptor)
            self._descriptor = None

    def _taken(self) -> int:
        """The descriptor of the file, claimed, with this process's name in it."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": _boot(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._claim(descriptor)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)
        except (OSError, RunFolderError):
            os.close(descriptor)
            raise
        return descriptor

    def _empty(self) -> None:
        """Takes this process's name out: nobody has to wait for it, on whatever machine."""
        with self._leaving, contextlib.suppress(OSError):
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)

    def _beat(self) -> None:
        while not self._over.wait(_BEAT):
            with contextlib.suppress(OSError):  # a disk that comes back is touched the next time
                os.utime(self.path)

    def _retry_until_stale(self, attempt: Callable[[], Any]) -> Any:
        """What an attempt gives, made again and again while it fails for a process that may be
        dead."""
        began, told = time.monotonic(), False
        while True:
            try:
                return attempt()
            except PossiblyStaleLock as owner:
                # Killed while it was waited for, it is silent already and counts as dead soon.
                dying = 2 * _BEAT < owner.quiet < _DEAD_AFTER
                if time.monotonic() - began >= _DEAD_AFTER and not dying:
                    raise
                if not told:
                    self.say(
                        f"{self.path.parent}: waiting, since {owner.who} may still be at it; "
                        f"{_DEAD_AFTER:g} s of silence will tell"
                    )
                    told = True
            time.sleep(_BEAT / 20)

    def _claim(self, descriptor: int) -> None:
        """Takes the system's lock on an open file, where no living process holds it or wrote itself
        into it."""
        owner = _owner(os.pread(descriptor, 1000, 0))
        # The same boot of the same kernel: the system's lock tells. A container that is started
        # again has another host name.
        known = owner.get("host") == socket.gethostname() or owner.get("boot", "") == _boot() != ""
        quiet = time.time() - os.fstat(descriptor).st_mtime
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._in_use(owner, None if known else quiet) from None
        except OSError:  # a disk without locks
            known = False
        if owner and not known and quiet < _DEAD_AFTER:
            raise self._in_use(owner, quiet)

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path.parent}: expected a folder that can be written; received {error}"
            ) from error

    def _in_use(self, owner: dict, quiet: float | None) -> RunFolderError:
        """The error that names who is at it; `quiet`: for so many seconds, where only that tells
        whether it lives."""
        who = (
            f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since "
            f"{owner.get('started', '?')}"
        )
        text = (
            f"{self.path.parent}: expected a run that no process is at; in use by {who}. Wait for "
            "it, or end it there (SIGTERM saves "
            "first); --fresh begins another run"
        )
        return RunFolderError(text) if quiet is None else PossiblyStaleLock(text, who, quiet)


class PossiblyStaleLock(RunFolderError):
    """In use by a process that isn't known to live: another machine's, or one whose disk knows no
    locks."""

    def __init__(self, text: str, who: str, quiet: float):
        super().__init__(text)
        self.who, self.quiet = who, quiet


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
