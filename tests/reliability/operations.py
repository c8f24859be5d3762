"""Intercepts every file operation of a process: to record it, to fail it, or to kill the process."""

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
    """A file operation that is about to be made.

    Attributes:
        name: of the system call.
        path: of the file or folder.
        target: new path of a rename; None otherwise.
        data: bytes of a write; None otherwise.
        first_half: makes the first half of a write; does nothing otherwise.
    """

    name: str
    path: str
    target: str | None
    data: bytes | None
    first_half: Callable[[], object]


class Operations:
    """Context manager that intercepts Python's file functions, in all threads.

    Args:
        folder: the operations below it are intercepted.
        before: called with the number of each operation, from 0, and the operation. It may raise,
            or not return.
        reading: whether to intercept operations that only read, too.
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
            location = _location(path, options.get("dir_fd", options.get("src_dir_fd")))
            if location == self.folder or location.startswith(self.folder + "/"):
                target = _location(rest[0], None) if name == "rename" else None
                data = bytes(rest[0]) if name == "write" else None
                half = (
                    (lambda: real(path, data[: len(data) // 2]))
                    if name == "write"
                    else (lambda: None)
                )
                self.count += 1
                self.before(self.count - 1, Operation(name, location, target, data, half))
            return real(path, *rest, **options)

        return function


def _location(path, directory: int | None) -> str:
    """Returns the absolute path of a path or of an open file's descriptor."""
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    if directory is not None:
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fspath(path))
    return os.path.abspath(os.fspath(path))


def kill_at(number: int, after_half: bool = False) -> Callable[[int, Operation], None]:
    """Returns a `before` for `Operations` that kills the process before an operation.

    Args:
        number: of the operation.
        after_half: whether to make the first half of it first, if it is a write.
    """

    def before(count: int, operation: Operation) -> None:
        if count == number:
            if after_half:
                operation.first_half()
            os.kill(os.getpid(), signal.SIGKILL)

    return before


def fail_at(number: int, error: int, last: int | None = None) -> Callable[[int, Operation], None]:
    """Returns a `before` for `Operations` that fails some operations.

    Args:
        number: of the first that fails.
        error: error number.
        last: number of the last that fails; None for the first alone.
    """

    def before(count: int, operation: Operation) -> None:
        if number <= count <= (number if last is None else last):
            raise OSError(error, os.strerror(error), operation.path)

    return before
