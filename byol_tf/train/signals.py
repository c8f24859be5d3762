"""SIGTERM, SIGINT and SIGHUP: the first asks a run to save and stop, a second of its kind ends it
at once. Needs no TensorFlow."""

import os
import signal
import threading
from collections.abc import Callable

from byol_tf.runs.process_exit import exit_now

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class SignalWatch:
    """Takes note of signals while it is entered; what is ignored already, as SIGHUP under `nohup`,
    stays ignored.

    Python runs handlers between two of its own instructions, and the training thread may be inside
    TensorFlow for minutes. So the C handler writes each signal's number into a pipe, and a thread
    reads it there: a second signal isn't made to wait.

    Args:
        plan: what people are told that is going to happen now. None where no step is being made, so
            that nothing is to be saved: the first signal then ends the process at once, with the
            exit code that it has after a save.
        on_first: called with the first signal's number, from the thread.

    Attributes:
        received: the number of the first signal that came, or None.
    """

    def __init__(self, plan: str | None, on_first: Callable[[int], None] | None = None):
        self.plan, self.on_first = plan, on_first
        self.received: int | None = None
        self._seen: set[int] = set()
        self._before: dict[int, object] = {}
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is not threading.main_thread():
            return self  # no signal comes here, and Python lets no other thread set handlers
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda *_: None)
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        if self._thread is None:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._writer)  # which ends the thread
        self._thread.join()
        os.close(self._reader)

    def ask(self, number: int) -> None:
        """As if the signal had come here: it came to another process of the run."""
        self.received = number if self.received is None else self.received

    def _read(self) -> None:
        while numbers := os.read(self._reader, 64):
            for number in numbers:
                if number in self._before:
                    self._take(number)

    def _take(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.plan is None:
            os.write(
                2, f"\n{name}: ended; no step was being made\n".encode()
            )  # a print could meet another one in the same buffer
        if self.plan is None or number in self._seen:
            exit_now(128 + number)
        self._seen.add(number)
        first, self.received = self.received is None, self.received or number
        os.write(2, f"\n{name}: {self.plan}; once more ends at once\n".encode())
        if first and self.on_first is not None:
            self.on_first(number)
