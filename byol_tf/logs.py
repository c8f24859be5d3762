"""Output of the commands: log records as plain lines, and streams that ignore write errors."""

import contextlib
import logging
import sys
from typing import Any, TextIO

_PACKAGES = ("byol_tf", "pipelines")


def configure_logging(level: int = logging.INFO) -> None:
    """Prints the log records of `byol_tf` and `pipelines` on stdout, a plain line each.

    A warning's line begins with "warning: ". A full disk or a closed terminal loses a line and
    raises nothing. Called again, it only sets the level.

    Args:
        level: the lowest level to print.
    """
    for name in _PACKAGES:
        package_logger = logging.getLogger(name)
        package_logger.setLevel(level)
        # Some dependency installs a handler on the root logger, which would print each line again.
        package_logger.propagate = False
        if not any(isinstance(handler, _LineHandler) for handler in package_logger.handlers):
            package_logger.addHandler(_LineHandler())


class _LineHandler(logging.Handler):
    """Prints each record as a line on the `sys.stdout` of that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the record; an error of the stream is ignored."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            sys.stdout.write(f"{prefix}{record.getMessage()}\n")
            sys.stdout.flush()


def ignore_output_errors() -> None:
    """Has later writes to stdout and stderr fail silently on a full disk or a closed terminal.

    Streams that a program has put in their place are left alone.
    """
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _TolerantStream(sys.stdout)  # type: ignore[arg-type]  # narrowed to None
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _TolerantStream(sys.stderr)  # type: ignore[arg-type]  # narrowed to None


class _TolerantStream:
    """A text stream that ignores write errors.

    What a full disk didn't take stays in Python's buffer and is written once there is space.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text as far as the stream takes it; returns its length."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream as far as it can be."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
