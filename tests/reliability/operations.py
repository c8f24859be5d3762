"""Every file operation of a process, by number: recorded, answered with an error, or the last that
the process makes."""

import io
import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

_CHANGING = {
    name: (os, name) for name in ("open", "write", "fsync", "mkdir", "rename", "unlink", "rmdir")
}
_READING = {"open to read": (io, "open"), "list": (os, "scandir")}


class Operation(NamedTuple):
    """One that is about to be made.

    Attributes:
        name: of the system's call.
        path: that it is for.
        target: the new name, of a rename.
        data: of a write.
        first_half: makes the first half of a write.
    """

    name: str
    path: str
    target: str | None
    data: bytes | None
    first_half: Callable[[], object]


class Operations:
    """Stands between Python's functions for files and the system while it is entered, in all
    threads.

    Only below one folder: what else a process opens is none of the test's.

    Args:
        folder: whose files matter.
        before: called with the number of each operation, from 0, and the operation. It may raise,
            or not come back.
        reading: whether those count that leave the disk as it is.
    """

    def __init__(self, folder, before: Callable[[int, Operation], None], reading: bool = False):
        self.folder, self.before, self.count = os.fspath(folder), before, 0
        self._functions = _CHANGING | _READING if reading else _CHANGING

    def __enter__(self) -> "Operations":
        self._real = {
            name: getattr(module, function) for name, (module, function) in self._functions.items()
        }
        for name, (module, function) in self._functions.items():
            setattr(module, function, self._watched(name))
        return self

    def __exit__(self, *_) -> None:
        for name, (module, function) in self._functions.items():
            setattr(module, function, self._real[name])

    def _watched(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def function(path, *rest, **options):
            where = _where(path, options.get("dir_fd", options.get("src_dir_fd")))
            if where == self.folder or where.startswith(self.folder + "/"):
                target = _where(rest[0], None) if name == "rename" else None
                data = bytes(rest[0]) if name == "write" else None
                half = (
                    (lambda: real(path, data[: len(data) // 2]))
                    if name == "write"
                    else (lambda: None)
                )
                self.count += 1
                self.before(self.count - 1, Operation(name, where, target, data, half))
            return real(path, *rest, **options)

        return function


def _where(path, directory: int | None) -> str:
    """The absolute path that a path, or an open file's number, stands for."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    if directory is not None:
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fspath(path))
    return os.path.abspath(os.fspath(path))


def kill_at(number: int, after_half: bool = False) -> Callable[[int, Operation], None]:
    """For `Operations`: SIGKILL before an operation, or in the middle of it if it is a write."""

    def before(count: int, operation: Operation) -> None:
        if count == number:
            if after_half:
                operation.first_half()
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def fail_at(number: int, error: int, last: int | None = None) -> Callable[[int, Operation], None]:
    """For `Operations`: those from a number to a last one (the same, if it isn't named) are
    answered with an error."""

    def before(count: int, operation: Operation) -> None:
        if number <= count <= (number if last is None else last):
            raise OSError(error, os.strerror(error), operation.path)

    return before
