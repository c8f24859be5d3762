"""The end of a process whose other threads may wait for ever, for a disk or for another machine.
Needs no TensorFlow."""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NoReturn

_PATIENCE = 1.0
"""Seconds for what is done before: the disk that it needs may be the one that doesn't answer."""
_first: list[Callable[[], object]] = []


def register_exit_hook(action: Callable[[], object]) -> None:
    """Has `exit_now` do something first, such as to give back what others would wait for; its
    failures are nobody's."""
    _first.append(action)


def unregister_exit_hook(action: Callable[[], object]) -> None:
    """Takes that back."""
    _first.remove(action)


def exit_now(code: int) -> NoReturn:
    """Ends this process at once with an exit code, whatever its other threads do: none of them is
    waited for, nothing is unwound."""

    def do_first() -> None:
        for action in list(_first):
            with contextlib.suppress(Exception):
                action()

    with contextlib.suppress(RuntimeError):  # the system gives no more threads
        thread = threading.Thread(target=do_first, name="end", daemon=True)
        thread.start()
        thread.join(_PATIENCE)
    os._exit(code)
