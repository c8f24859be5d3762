"""Immediate end of a process whose other threads may wait forever for a disk or another machine."""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import NoReturn

_HOOKS_TIMEOUT = 1.0
"""Seconds that all hooks get together: the disk that they need may be the one that doesn't
answer."""
_hooks: list[Callable[[], object]] = []


def register_exit_hook(hook: Callable[[], object]) -> None:
    """Registers a hook that `exit_now` runs first; its exceptions are ignored."""
    _hooks.append(hook)


def unregister_exit_hook(hook: Callable[[], object]) -> None:
    """Unregisters a hook."""
    _hooks.remove(hook)


def exit_now(code: int) -> NoReturn:
    """Ends this process with an exit code, without waiting for any other thread.

    The hooks run first, for a second at most. Nothing is unwound: no `finally` and no `atexit`.
    """

    def run_hooks() -> None:
        for hook in list(_hooks):
            with contextlib.suppress(Exception):
                hook()

    with contextlib.suppress(RuntimeError):  # the system gives no more threads
        thread = threading.Thread(target=run_hooks, name="exit-hooks", daemon=True)
        thread.start()
        thread.join(_HOOKS_TIMEOUT)
    os._exit(code)
