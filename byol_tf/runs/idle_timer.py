"""Time without a change, as it matters for disks and processes that may hang."""

import time
from typing import Any

_LONGEST_STEP = 2.0
"""Seconds between two looks that count at most."""


class IdleTimer:
    """Measures for how long a value hasn't changed while this process was running.

    A process that was stopped or suspended for minutes hasn't looked, and can't know what changed
    meanwhile. So of the time between two looks at most two seconds count.

    Attributes:
        seconds: without a change, up to the last look.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._value: Any = None
        self._looked_at = 0.0

    def look(self, value: Any) -> float:
        """Returns the seconds for which the value has been this one, 0 at its first look."""
        now = time.monotonic()
        if value != self._value:
            self._value, self.seconds = value, 0.0
        else:
            self.seconds += min(now - self._looked_at, _LONGEST_STEP)
        self._looked_at = now
        return self.seconds
