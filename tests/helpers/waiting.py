"""Waiting in tests: the only time-out is a guard against hanging."""

import time
from collections.abc import Callable

import pytest

HANG = 1800.0
"""Seconds after which something counts as hanging: more than ten times what the longest wait takes,
also beside a load of 15 on two cores, where two workers needed 600."""


def wait_until(
    condition: Callable[[], object], failure: Callable[[], object] = lambda: "", pause: float = 0.01
) -> None:
    """Returns once a condition holds; fails the test if it doesn't within `HANG` seconds.

    Args:
        condition: asked again and again; may fail the test itself.
        failure: returns what to show if the time is over.
        pause: seconds between two questions.
    """
    deadline = time.monotonic() + HANG
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {HANG:g} s: {failure()}")
        time.sleep(pause)
