"""Lock of a run folder: one process at a time writes it."""

import contextlib
import datetime
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

from byol_tf.errors import RunFolderError
from byol_tf.runs.files import NO_FOLLOW
from byol_tf.runs.folder import LOCK_NAME
from byol_tf.runs.idle_timer import IdleTimer
from byol_tf.runs.process_exit import register_exit_hook, unregister_exit_hook
from pipelines.regular_files import open_regular, regular_descriptor

_HEARTBEAT = 20.0
"""Seconds between two touches of the lock file, which show processes on other machines that share
the disk that this one is alive."""
_STALE_AFTER = 6 * _HEARTBEAT
_LOCKED_BYTE = 2**30
"""Position of the byte that is locked on Windows, beyond the content: nobody else can read it."""
_ADVICE = "Wait for it, or end it there (SIGTERM saves first); --fresh starts another run"
_idle_timers: dict[Path, IdleTimer] = {}
"""Of the lock files that this process has waited for, so that a second wait continues the first."""

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)


class RunLock:
    """Context manager that locks a run folder for this process.

    An operating system's lock on the file `.lock` shows whether a process of this machine is
    alive; the system releases it when the process ends. The file also names process, machine and
    start. A process on another machine touches the file as long as it is alive: if nothing has
    touched it in two minutes of watching, whatever either clock shows, that process is taken for
    dead. It is waited for because a scheduler restarts a run on another machine as soon as the
    first one is lost. On exit the file is emptied and not removed, since that could remove the file
    of the next process.

    A process that is suspended for longer loses the lock on a disk without working locks:
    `check_owner` shows that.

    Args:
        root: the folder.
        subject: what the folder is, in the message.
        advice: what to do while another process uses it.

    Raises:
        RunFolderError: from `check` and on entering, if a running process has the lock (the text
            names that process) or the lock file can't be written. At once where that process is
            on this machine; after two to four minutes where it is on another.
    """

    def __init__(self, root: Path, subject: str = "run", advice: str = _ADVICE):
        self.path = Path(root) / LOCK_NAME
        self._subject, self._advice = subject, advice
        self._descriptor: int | None = None
        self._content = b""  # of the file while this process has the lock
        self._descriptor_lock = threading.Lock()
        self._released = threading.Event()

    def check(self) -> None:
        """Raises `RunFolderError` if the folder is in use; writes nothing."""

        def claim() -> None:
            # A network disk locks only what may be written; a link isn't followed.
            descriptor = regular_descriptor(self.path, os.O_RDWR | NO_FOLLOW)
            try:
                self._claim(descriptor)  # released when the file is closed
            finally:
                os.close(descriptor)

        with self._disk_errors():
            if self.path.exists():
                self._retry_until_stale(claim)

    def check_owner(self) -> None:
        """Raises `RunFolderError` if another process has taken the lock from this one.

        To be called before anything is written into the folder.
        """
        owner = self._successor()
        if owner is not None:
            raise RunFolderError(
                f"{self.path.parent}: expected to have this {self._subject} alone; while this "
                f"process was suspended, or couldn't reach the disk, it was taken over by {owner}. "
                "This process writes nothing more"
            )

    def __enter__(self) -> "RunLock":
        with self._disk_errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = self._retry_until_stale(self._acquire)
        register_exit_hook(self._clear_owner)
        self._released = threading.Event()
        threading.Thread(
            target=self._touch_regularly, args=(self._released,), name="lock", daemon=True
        ).start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._released.set()
        unregister_exit_hook(self._clear_owner)
        self._clear_owner()
        with self._descriptor_lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None

    def _acquire(self) -> int:
        """Claims the lock file and writes this process into it; returns its descriptor."""
        owner = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "boot": _boot_id(),
            "token": uuid.uuid4().hex,
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        descriptor = regular_descriptor(self.path, os.O_RDWR | os.O_CREAT | NO_FOLLOW, 0o644)
        try:
            self._claim(descriptor)
            self._content = json.dumps(owner).encode()
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, self._content)
        except (OSError, RunFolderError):
            os.close(descriptor)
            raise
        return descriptor

    def _clear_owner(self) -> None:
        """Empties the lock file, so that no process on any machine waits for this one."""
        with self._descriptor_lock, contextlib.suppress(OSError):
            if self._descriptor is not None and self._successor() is None:
                os.ftruncate(self._descriptor, 0)

    def _successor(self) -> str | None:
        """Returns a description of the process that took the lock from this one; None if none."""
        try:
            with open_regular(self.path) as file:  # anew: network disks cache open files
                content = file.read()
        except OSError:  # missing, or not to be read now: no other process has written it
            return None
        if content == self._content:
            return None
        return _describe(_parse_owner(content)) if content else "a process that has ended"

    def _touch_regularly(self, released: threading.Event) -> None:
        while not released.wait(_HEARTBEAT):
            with contextlib.suppress(OSError):  # a disk that comes back is touched the next time
                if self._successor() is None:
                    os.utime(self.path)

    def _retry_until_stale(self, attempt: Callable[[], _Result]) -> _Result:
        """Calls `attempt` until it raises no `PossiblyStaleLock`, for two minutes or a bit more."""
        waited, reported = 0.0, False
        while True:
            try:
                return attempt()
            except PossiblyStaleLock as lock:
                # An owner that was killed meanwhile is silent already, and stale soon.
                almost_stale = 2 * _HEARTBEAT < lock.silent_seconds < _STALE_AFTER
                if waited >= _STALE_AFTER and not almost_stale:
                    raise
                if not reported:
                    logger.info(
                        "%s: waiting, since %s may still use it; it counts as dead after %g s "
                        "without a sign of life",
                        self.path.parent,
                        lock.owner,
                        _STALE_AFTER,
                    )
                    reported = True
            time.sleep(_HEARTBEAT / 20)
            waited += _HEARTBEAT / 20

    def _claim(self, descriptor: int) -> None:
        """Takes the system's lock on the open file; raises if a running process owns it."""
        content = os.read(descriptor, 1000)
        owner = _parse_owner(content)
        # On the same machine the system's lock is conclusive. The kernel's boot shows that it is
        # the same: machines and containers may share a host name, or change it.
        boot = _boot_id()
        same_machine = (
            owner.get("boot") == boot
            if boot and owner.get("boot")
            else owner.get("host") == socket.gethostname()
        )
        timer = _idle_timers.setdefault(self.path.absolute(), IdleTimer())
        silent_seconds = timer.look((content, os.fstat(descriptor).st_mtime_ns))
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError):  # the latter on Windows
            raise self._in_use(owner, None if same_machine else silent_seconds) from None
        except OSError:  # a disk without locks
            same_machine = False
        if owner and not same_machine and silent_seconds < _STALE_AFTER:
            raise self._in_use(owner, silent_seconds)

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turns an `OSError` into a `RunFolderError`."""
        try:
            yield
        except OSError as error:
            raise RunFolderError(
                f"{self.path.parent}: expected a folder that can be written; received {error}"
            ) from error

    def _in_use(self, owner: dict[str, Any], silent_seconds: float | None) -> RunFolderError:
        """Returns the error that names the owner.

        Args:
            owner: content of the lock file.
            silent_seconds: of watching in which nothing has touched the file, where nothing else
                shows whether the owner is alive; None where the system's lock shows that it is.
        """
        description = _describe(owner)
        text = (
            f"{self.path.parent}: expected a {self._subject} that no process uses; in use by "
            f"{description}. {self._advice}"
        )
        if silent_seconds is None:
            return RunFolderError(text)
        return PossiblyStaleLock(text, description, silent_seconds)


class PossiblyStaleLock(RunFolderError):
    """A lock whose owner may be dead: on another machine, or on a disk without locks.

    Args:
        text: of the error.
        owner: a description of the process.
        silent_seconds: of watching in which nothing has touched the file.
    """

    def __init__(self, text: str, owner: str, silent_seconds: float):
        super().__init__(text)
        self.owner, self.silent_seconds = owner, silent_seconds


def _lock(descriptor: int) -> None:
    """Takes the system's lock on an open file; raises `OSError` if it can't be had."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)


def _boot_id() -> str:
    """Returns the identifier of the running kernel's boot; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _describe(owner: dict[str, Any]) -> str:
    return (
        f"process {owner.get('pid', '?')} on {owner.get('host', '?')}, since "
        f"{owner.get('started', '?')}"
    )


def _parse_owner(content: bytes) -> dict[str, Any]:
    try:
        owner = json.loads(content)
    except (ValueError, RecursionError):  # empty, or its process died while it wrote
        return {}
    return owner if isinstance(owner, dict) else {}
