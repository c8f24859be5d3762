"""Signal handling: the first SIGTERM, SIGINT or SIGHUP has a run save and stop, a second exits."""

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Collection

from byol_tf.command_line import stop_signals_handled
from byol_tf.native_output import write_to_terminal
from byol_tf.runs.process_exit import exit_now


class SignalWatch:
    """Context manager that records the signals that ask to stop.

    Python runs handlers between two of its own instructions, and the training thread may be inside
    TensorFlow for minutes. So the C handler writes each signal's number into a socket, and a thread
    reads it from its other end: a second signal acts at once.

    Args:
        response: what the process does after a first signal, for its message. None where no
            training step runs, so that nothing is to be saved: the first signal then ends the
            process at once, with the exit code that it would have after a save.
        on_first: called with the first signal's number, from the thread.

    Attributes:
        received: the number of the first signal, or None.
    """

    def __init__(self, response: str | None, on_first: Callable[[int], None] | None = None):
        self.response, self.on_first = response, on_first
        self.received: int | None = None
        self._seen: set[int] = set()
        self._exit = contextlib.ExitStack()
        self._handled: Collection[int] = ()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "SignalWatch":
        if threading.current_thread() is not threading.main_thread():
            return self  # no signal arrives here, and Python lets no other thread set handlers
        self._reader, self._writer = socket.socketpair()  # Windows' pipes always block
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._handled = self._exit.enter_context(stop_signals_handled(lambda *_: None))
        self._thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None:
            return
        self._exit.close()
        signal.set_wakeup_fd(self._wakeup_before)
        self._writer.close()  # which ends the thread
        self._thread.join()
        self._reader.close()

    def receive(self, number: int) -> None:
        """Records a signal that another process of the run received."""
        self.received = number if self.received is None else self.received

    def _read(self) -> None:
        while numbers := self._reader.recv(64):
            for number in numbers:
                if number in self._handled:
                    self._handle(number)

    def _handle(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.response is None:
            write_to_terminal(f"\n{name}: exiting at once; no training step is running\n")
        if self.response is None or number in self._seen:
            exit_now(128 + number)
        self._seen.add(number)
        is_first = self.received is None
        self.receive(number)
        write_to_terminal(f"\n{name}: {self.response}; a second one exits at once\n")
        if is_first and self.on_first is not None:
            self.on_first(number)
