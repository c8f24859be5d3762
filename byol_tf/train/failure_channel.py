"""Failure detection for multi-worker training.

Every worker keeps a TCP connection to the chief for as long as the run lasts. A worker that fails
sends its reason and exit code, and the chief passes them on. One that is killed closes its
connection by ending, and TCP's keep-alive closes that of a machine that is cut off. The others exit
then, whatever their threads wait for. Two failures keep the connection open: a stopped process,
which TensorFlow's own heartbeat notices, and input that never arrives, which `InputWatchdog` does.
"""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from byol_tf.errors import LOST
from byol_tf.runs.process_exit import exit_now
from byol_tf.train.rendezvous import Connection, report_exit


class FailureChannel:
    """Connections over which the workers of a run report their failures to each other.

    Without `start` it has no connections, and does nothing.

    Args:
        index: index of this worker, from 0; 0 is the chief, to which the others connect.
        count: number of workers.
        exit_process: ends this process with an exit code, whatever its other threads do.

    Attributes:
        on_signal: on the chief, called with the number of a signal that another worker received.
            While it is None no step is running and nothing needs saving, so all workers exit.
        on_lost_photo: on the chief, called with (path, reason) of a photo that another worker can't
            read.
    """

    def __init__(
        self, index: int, count: int, exit_process: Callable[[int], object] = exit_now
    ) -> None:
        self.index, self.count, self._exit_process = index, count, exit_process
        self.on_signal: Callable[[int], object] | None = None
        self.on_lost_photo: Callable[[str, str], object] = lambda path, reason: None
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()  # from here on no failure is acted on
        self._failed = threading.Event()

    def start(self, connections: dict[int, Connection]) -> None:
        """Starts the detection.

        Args:
            connections: from `rendezvous.connect_workers`.
        """
        self._connections = connections
        for connection in connections.values():
            threading.Thread(
                target=self._read, args=(connection,), name="failures", daemon=True
            ).start()

    def send_signal(self, number: int) -> None:
        """Reports to the chief a signal that this worker received."""
        self._send({"signal": number})

    def send_lost_photo(self, path: str, reason: str) -> None:
        """Reports to the chief a photo that this worker can't read."""
        self._send({"photo": path, "why": reason})

    def announce(self, code: int, reason: str) -> None:
        """Has the other workers exit; to be called before this one exits.

        Args:
            code: their exit code.
            reason: what they report, as a predicate of this worker: "was stopped by SIGTERM".
        """
        self._closed.set()
        self._send({"code": code, "reason": self._of_worker(self.index, reason)})

    def abort(self, code: int, reason: str) -> None:
        """Has all workers exit, this one too, whatever its other threads wait for.

        Args:
            code: their exit code.
            reason: as for `announce`.
        """
        self._fail({"code": code, "reason": self._of_worker(self.index, reason)}, self.index)

    def close(self) -> None:
        """Ends the detection: all workers have come to the end of the run."""
        self._closed.set()
        for connection in self._send({"done": True}):
            connection.close()

    def wait_for_failure(self, seconds: float = 5.0) -> None:
        """Waits for a failure of another worker, which ends this process; returns if none came."""
        if self._connections and self._failed.wait(seconds):
            time.sleep(10.0)  # another thread is ending this process

    def _read(self, connection: "Connection") -> None:
        """Receives the messages of a connection until it is closed."""
        connection.socket.settimeout(None)
        done = False
        try:
            while (message := connection.receive()) is not None:
                if "done" in message:
                    done = True
                elif "signal" in message:
                    self._take_signal(connection.index, message["signal"])
                elif "photo" in message:
                    self.on_lost_photo(message["photo"], message["why"])
                elif "code" in message:
                    self._fail(message, connection.index)
        except (OSError, ValueError):
            pass  # reset, or cut off within a line: as good as closed
        connection.ended.set()
        if not done:
            reason = self._of_worker(connection.index, "was lost: its connection was closed")
            self._fail({"code": LOST, "reason": reason}, connection.index)

    def _take_signal(self, index: int, number: int) -> None:
        if self.on_signal is not None:
            self.on_signal(number)
        else:
            reason = self._of_worker(index, f"was stopped by {signal.Signals(number).name}")
            self._fail({"code": 128 + number, "reason": reason}, None)

    def _fail(self, message: dict[str, Any], source: int | None) -> None:
        """Passes a failure on, except to the worker that reported it, and exits."""
        with self._lock:  # only the first failure counts
            if self._closed.is_set():
                return
            self._closed.set()
        self._failed.set()
        informed = self._send(message, exclude=source)
        report_exit(message["code"], message["reason"])
        for connection in informed:
            connection.ended.wait(1.0)  # exiting with unread data would discard what was just sent
        self._exit_process(message["code"])

    def _send(self, message: dict[str, Any], exclude: int | None = None) -> list["Connection"]:
        """Sends a message to all connected workers but one; returns their connections."""
        receivers = [
            connection for index, connection in self._connections.items() if index != exclude
        ]
        for connection in receivers:
            connection.send(message)
        return receivers

    def _of_worker(self, index: int, predicate: str) -> str:
        return f"worker {index + 1} of {self.count} {predicate}"
