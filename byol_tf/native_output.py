"""Keeps off the terminal what TensorFlow, XLA and CUDA write there themselves, into a log file.

They write their log lines to file descriptor 2, at any log level until absl is initialized, which
Python can't ask for. So a command gives Python's own stderr another descriptor of the same terminal
or file, and has descriptor 2 point to the log. Other processes that it starts inherit that.

If the process crashes (abort, segmentation fault), the reason is in the log, where faulthandler
adds the Python stack. A waiting `sh`, which outlives any crash, then shows it.
"""

import contextlib
import faulthandler
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_WATCH = """
log=$0
while read -r line; do log=$line; done  # until the command has ended
if grep -q 'Fatal Python error' "$log" 2>/dev/null; then
    grep -m 1 -B 10 -A 15 'Fatal Python error' "$log" |
        grep -v '^[IW][0-9]\\|^WARNING: All log\\|^Extension modules'
    echo "the process crashed; TensorFlow's own messages: $log"
elif [ -n "$log" ]; then
    rm -f "$0"
fi
"""
"""Shell code of the process that waits for a command's end. `$0` is the log that it began with,
which is temporary; each line of its input is the path of another one, or empty where the command
has named the log itself."""

_terminal = 2
"""Descriptor of what the user sees as stderr."""
_log: Path | None = None
_watcher: subprocess.Popen[bytes] | None = None


def separate_stderr() -> None:
    """Gives `sys.stderr` a descriptor of its own, as `redirect_native_output` needs it."""
    global _terminal
    if sys.stderr is None:  # closed by the user
        return
    with contextlib.suppress(OSError):
        _terminal = os.dup(2)
        sys.stderr = open(  # noqa: SIM115
            _terminal, "w", 1, sys.stderr.encoding, "backslashreplace"
        )
        sys.__stderr__ = sys.stderr  # type: ignore[misc]  # as Python does at its start


def redirect_native_output() -> None:
    """Has descriptor 2 point to a temporary log from now on.

    Does nothing a second time, in a process that isn't a command, or where no file can be made.
    """
    global _log, _watcher
    if _terminal == 2 or _log is not None:
        return
    with contextlib.suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix="byol-", suffix=".log")
        _log = Path(name)
        _point_to(descriptor)
        faulthandler.enable(file=2)
        # A session of its own: neither Ctrl-C nor a terminal that is closed ends it.
        _watcher = subprocess.Popen(
            ["sh", "-c", _WATCH, name],
            stdin=subprocess.PIPE,
            stdout=_terminal,
            stderr=_terminal,
            start_new_session=True,
        )


def move_native_log(folder: Path, append_to: Callable[[Path], BinaryIO]) -> None:
    """Continues the log in a folder, as `tensorflow.log`, after those of earlier processes.

    Args:
        folder: made if it is missing.
        append_to: opens a file there to append to, as `runs.files.append_to` does. Where that
            raises `OSError`, the log stays where it is.
    """
    global _log
    if _log is None:
        return
    path = folder.absolute() / "tensorflow.log"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with append_to(path) as file:
            with open(_log, "rb") as former:
                shutil.copyfileobj(former, file)
            file.flush()
            _point_to(os.dup(file.fileno()))
        _log.unlink()
        _log = path
        _tell_watcher(str(path))


def kept_native_log() -> Path | None:
    """Returns the log of this process, which stays now that the user is told; None without one."""
    _tell_watcher("")
    return _log


def name_native_log() -> None:
    """Names the log on the terminal, if there is one, and keeps it."""
    if log := kept_native_log():
        write_to_terminal(f"TensorFlow's own messages: {log}\n")


def write_to_terminal(text: str) -> None:
    """Writes text to the terminal at once, also where `print` could enter a buffer in use."""
    with contextlib.suppress(OSError):
        os.write(_terminal, text.encode(errors="backslashreplace"))


def _point_to(descriptor: int) -> None:
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _tell_watcher(line: str) -> None:
    if _watcher is not None and _watcher.stdin is not None:
        _watcher.stdin.write(f"{line}\n".encode(errors="surrogateescape"))
        _watcher.stdin.flush()
