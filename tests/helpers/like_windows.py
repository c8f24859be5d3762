"""Makes a process lack what Windows lacks; for child processes, imported before byol_tf.

`fcntl` can't be imported, the POSIX names that byol_tf knows of are missing, and `msvcrt` has a
`locking` that works by Linux's locks of open files, which are a handle's as on Windows. It shows
that nothing else is needed, not that the code works on Windows.
"""

import fcntl
import os
import signal
import struct
import subprocess  # noqa: F401 - takes this for Windows if it finds msvcrt
import sys
import types

LK_NBLCK = 2


def _locking(descriptor: int, mode: int, count: int) -> None:
    """As `msvcrt.locking` for LK_NBLCK: from the file's position on."""
    assert mode == LK_NBLCK
    start = os.lseek(descriptor, 0, os.SEEK_CUR)
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, count, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError as error:
        raise PermissionError(13, "Permission denied") from error  # Windows' errno


def apply() -> None:
    """Removes the names from this process."""
    sys.modules["msvcrt"] = types.SimpleNamespace(locking=_locking, LK_NBLCK=LK_NBLCK)
    sys.modules["fcntl"] = None
    for module, names in {
        os: (
            "O_NOFOLLOW",
            "O_NONBLOCK",
            "pread",
            "pwrite",
            "set_blocking",
            "posix_fadvise",
            "fork",
        ),
        signal: (
            "SIGHUP",
            "SIGKILL",
            "SIGUSR1",
            "SIGUSR2",
            "SIGALRM",
            "SIGPIPE",
            "pthread_sigmask",
        ),
    }.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
