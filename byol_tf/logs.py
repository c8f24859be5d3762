"""Output of the commands: log lines, progress, counts, and streams that ignore write errors."""

import contextlib
import logging
import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

_PACKAGES = ("byol_tf", "pipelines")
_FIRST_PROGRESS_SECONDS, _PROGRESS_SECONDS = 3.0, 10.0
_STATUS_SECONDS = 0.1


def configure_logging(level: int = logging.INFO) -> None:
    """Prints the log records of `byol_tf` and `pipelines` on stdout, a plain line each.

    In a terminal a long one is wrapped. A warning's line begins with "warning: ". A full disk or a
    closed terminal loses a line and raises nothing. Called again, it only sets the level.

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
            text = f"{prefix}{record.getMessage()}"
            if sys.stdout.isatty():
                text = "\n".join(wrapped(line, first=0) for line in text.splitlines())
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()


def ignore_output_errors() -> None:
    """Has later writes to stdout and stderr fail silently: on a full disk, in a closed pipe.

    Characters that the terminal can't show are written as escapes, and each line at once. A stream
    that was closed before (`>&-`) takes everything and shows nothing. Streams that a program has
    put in their place stay.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace", line_buffering=True)
        if stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _TolerantStream(stream))


class _StatusLine:
    """The last line of a terminal, which is rewritten in place.

    Attributes:
        lock: held by whoever writes to the terminal, as several threads may.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._shown = False

    def show(self, text: str) -> None:
        """Shows a text in place of the one before, cut at the terminal's width."""
        with self.lock:
            self._write(f"{_ERASE}{text[: shutil.get_terminal_size().columns - 1]}")
            self._shown = True

    def clear(self) -> None:
        """Removes the text."""
        with self.lock:
            if self._shown:
                self._shown = False
                self._write(_ERASE)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            sys.stdout.write(text)
            sys.stdout.flush()


_ERASE = "\r\x1b[K"
_status = _StatusLine()


def on_terminal() -> bool:
    """Returns whether stdout is a terminal on which a line can be rewritten."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def show_status(text: str) -> None:
    """Shows a text as the terminal's last line until something else is written.

    Shows nothing where stdout is no terminal.
    """
    if on_terminal():
        _status.show(text)


def bar(share: float, width: int = 20) -> str:
    """Returns a bar of characters that is filled by a share, from 0 to 1."""
    full, empty = "━─" if "utf" in (sys.stdout.encoding or "").lower() else "=-"
    filled = int(share * width)
    return full * filled + empty * (width - filled)


@contextlib.contextmanager
def activity(text: str, logger: logging.Logger | None = None) -> Iterator[Callable[[str], None]]:
    """Shows in a terminal for how long some work takes; yields what changes the text.

    Args:
        text: what is being done.
        logger: that also gets the text, as a line that stays; or None.
    """
    if logger is not None:
        logger.info("%s", text)

    def change(changed: str) -> None:
        nonlocal text
        text = changed

    if not on_terminal():
        yield change
        return
    start, done = time.monotonic(), threading.Event()

    def show_seconds() -> None:
        while not done.wait(1.0):
            show_status(f"{text}  {time.monotonic() - start:.0f} s")

    if logger is None:
        show_status(text)
    thread = threading.Thread(target=show_seconds, name="activity", daemon=True)
    thread.start()
    try:
        yield change
    finally:
        done.set()
        thread.join()
        _status.clear()


class ProgressLog:
    """Reports the progress of long work, and its end in a line.

    In a terminal a bar; elsewhere a line after 3 s and then every 10 s. Called with (a description
    of the work, number of images done, their total number), as `pipelines.sources` does while it
    reads images.

    Args:
        logger: that the lines go to.
    """

    def __init__(self, logger: logging.Logger):
        self._logger = logger
        self._work, self._last_call = "", time.monotonic()

    def __call__(self, work: str, done: int, total: int) -> None:
        """Shows the progress, or logs a line if one is due."""
        now = time.monotonic()
        if work != self._work:
            self._work, self._start = work, self._last_call
            self._next = self._start + (0 if on_terminal() else _FIRST_PROGRESS_SECONDS)
        self._last_call = now
        if done == total:
            self._logger.info("%s: %s", work, counted(total, "image"))
        elif now >= self._next and done:
            left = time_left((now - self._start) / done * (total - done))
            if on_terminal():
                show_status(f"{work}  {bar(done / total)}  {done:,}/{total:,}  {left}")
                self._next = now + _STATUS_SECONDS
            else:
                self._logger.info("%s: %s of %s images, %s", work, f"{done:,}", f"{total:,}", left)
                self._next = now + _PROGRESS_SECONDS


def time_left(seconds: float) -> str:
    """Returns an estimate of the time left in words, such as `about 5 min left`."""
    if seconds >= 5400:
        return f"about {seconds / 3600:.1f} h left"
    return f"about {seconds / 60:.0f} min left" if seconds >= 60 else f"about {seconds:.0f} s left"


def counted(count: float, noun: str) -> str:
    """Returns a number with its noun, such as `1 epoch`, `0.5 epochs` or `1,200 epochs`."""
    number = f"{int(count):,}" if count == int(count) else f"{count:g}"
    return f"{number} {noun}" if count == 1 else f"{number} {noun}s"


def wrapped(text: str, indent: int = 2, first: int = 2) -> str:
    """Returns a paragraph, which a terminal gets in lines of its width, and a file in one line.

    Args:
        text: without line breaks; a word is never broken, so that paths can be copied.
        indent: spaces before each line but the first one.
        first: spaces before the first line.
    """
    return textwrap.fill(
        text,
        shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000,
        initial_indent=first * " ",
        subsequent_indent=indent * " ",
        break_long_words=False,
        break_on_hyphens=False,
    )


class _TolerantStream:
    """A text stream that ignores write errors.

    What a full disk didn't take stays in Python's buffer and is written once there is space.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes the text as far as the stream takes it; returns its length."""
        with _status.lock, contextlib.suppress(OSError):
            if not text.startswith(_ERASE):
                _status.clear()
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream as far as it can be."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
