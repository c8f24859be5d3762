"""Opens files that may be somebody else's: no pipe is waited for, no device read without end."""

import errno
import io
import os
import stat
from pathlib import Path

from pipelines.memory import free_memory

BINARY: int = getattr(os, "O_BINARY", 0)
"""Flag of `os.open` without which Windows changes line ends; other systems have none."""
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)
"""Flag of `os.open` without which a named pipe is waited for; Windows has none."""


def open_regular(path: str | Path) -> io.BufferedReader:
    """Opens a file to read; raises `OSError` as `regular_descriptor` does."""
    return open(path, "rb", opener=regular_descriptor)


def regular_descriptor(path: str | Path, flags: int, mode: int = 0o666) -> int:
    """Opens a file as `os.open` does, but neither a pipe nor a device.

    Args:
        path: of the file.
        flags: of `os.open`.
        mode: permissions of a new file.

    Returns:
        The file's descriptor.

    Raises:
        OSError: if it can't be opened; EISDIR for a folder, EINVAL for a pipe, a socket or a
            device.
    """
    descriptor = os.open(path, flags | BINARY | _NO_WAIT, mode)
    try:
        check_regular(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def check_regular(path: str | Path, status: os.stat_result) -> None:
    """Raises `OSError`, as `regular_descriptor`, unless the status is that of a regular file."""
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def check_size(path: str | Path, size: int) -> None:
    """Raises `OSError` if a file is larger than the memory that is free.

    To be called before it is hashed or read: a sparse file of any size takes no disk space.
    """
    if size > (free := free_memory()):
        raise OSError(
            errno.EFBIG,
            f"it has {size / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB of memory are free",
            str(path),
        )
