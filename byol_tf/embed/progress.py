"""How far a pass over photos is: a line that moves in a terminal, one now and then elsewhere."""

import sys
import time
from collections.abc import Callable

_TERMINAL_SECONDS, _LINE_SECONDS = 0.2, 30.0


class Progress:
    """Photos done, their rate, and the time left.

    Args:
        what: is being done.
        total: photos.
        say: prints a line.
    """

    def __init__(self, what: str, total: int, say: Callable[[str], None]):
        self.what, self.total, self.say = what, total, say
        self._terminal = sys.stdout.isatty()
        self._count, self._from = 0, 0
        self._began = self._shown = time.monotonic()

    def __enter__(self):
        self.say(f"{self.what} {self.total:,} photos")
        return self

    def __exit__(self, *error):
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)
        if self._count:
            self.say(f"{self._text()}, {time.monotonic() - self._began:,.1f} s")

    def restart(self) -> None:
        """Times the rate from here."""
        self._began, self._from = time.monotonic(), self._count

    def done(self, count: int) -> None:
        """So many photos are done, from the beginning."""
        self._count, now = count, time.monotonic()
        if now - self._shown < (_TERMINAL_SECONDS if self._terminal else _LINE_SECONDS):
            return
        self._shown = now
        left = (self.total - count) * (now - self._began) / max(count - self._from, 1)
        text = f"{self._text()}, about {_duration(left)} left"
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", flush=True)
        else:
            self.say(text)

    def _text(self) -> str:
        rate = (self._count - self._from) / max(time.monotonic() - self._began, 1e-9)
        return f"{self._count:,} of {self.total:,} photos, {rate:,.1f} photos/s"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:,.0f} min" if seconds >= 100 else f"{seconds:,.0f} s"
