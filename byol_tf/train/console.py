"""What a run prints can't end it: its log may lie on a disk that is full, and the terminal be gone.
Needs no TensorFlow."""

import contextlib
import sys


class _TolerantStream:
    """A text stream whose failures are nobody's. What a full disk didn't take is kept by Python,
    and written when it can be."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name):
        return getattr(self._stream, name)


def ignore_output_errors() -> None:
    """From now on no print fails in this process, nor its end; where a program has put streams of
    its own, they are left alone."""
    if sys.stdout is not None and sys.stdout is sys.__stdout__:
        sys.stdout = _TolerantStream(sys.stdout)
    if sys.stderr is not None and sys.stderr is sys.__stderr__:
        sys.stderr = _TolerantStream(sys.stderr)
