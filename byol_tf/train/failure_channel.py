"""Failure detection for multi-worker training.

Every worker keeps a TCP connection to the chief for as long as the run lasts. A worker that fails
sends its reason and exit code, and the chief passes them on. One that is killed closes its
connection by ending, and TCP's keep-alive closes that of a machine that is cut off. The others exit
then, whatever their threads wait for. Two failures keep the connection open: a stopped process,
which TensorFlow's own heartbeat notices, and input that never arrives, which `InputWatchdog` does.
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from byol_tf.errors import LOST, DeviceError, WorkerLost
from byol_tf.runs.process_exit import exit_now

logger = logging.getLogger(__name__)

START_TIMEOUT = 600.0
"""Seconds that workers wait for each other: they are rarely started at the same moment."""
_REMINDER_INTERVAL = 30.0
_RETRY_INTERVAL = 1.0
_REPLY_TIMEOUT = 5.0
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds idle before a probe, seconds between probes, unanswered probes: 25 s in all."""


class FailureChannel:
    """Connections over which the workers of a run report their failures to each other.

    Without `connect` it has no connections, and does nothing.

    Args:
        index: index of this worker, from 0; 0 is the chief, to which the others connect.
        count: number of workers.
        exit_process: ends this process with an exit code, whatever its other threads do.

    Attributes:
        on_signal: on the chief, called with the number of a signal that another worker received.
            While it is None no step is running and nothing needs saving, so all workers exit.
    """

    def __init__(
        self, index: int, count: int, exit_process: Callable[[int], object] = exit_now
    ) -> None:
        self.index, self.count, self._exit_process = index, count, exit_process
        self.on_signal: Callable[[int], object] | None = None
        self._connections: dict[int, _Connection] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()  # from here on no failure is acted on
        self._failed = threading.Event()

    def connect(
        self,
        addresses: Sequence[str],
        timeout: float = START_TIMEOUT,
        reminder_interval: float = _REMINDER_INTERVAL,
    ) -> None:
        """Waits until all workers of the run are connected.

        To be called before TensorFlow's servers start. They use the same ports, and while
        TensorFlow waits for other workers no Python thread runs: nothing could remind, give up or
        react to a signal.

        Args:
            addresses: host:port of each worker, the chief's first.
            timeout: seconds to wait.
            reminder_interval: seconds between two log lines that name who is missing.

        Raises:
            DeviceError: if this worker's port is in use.
            WorkerLost: if a worker is still missing after `timeout`.
        """
        wait = _Wait(self.index, addresses, timeout, reminder_interval)
        with _listen(addresses[self.index]) as server:
            if self.index == 0:
                self._accept_workers(server, wait)
        if self.index != 0:
            self._connections[0] = self._join_chief(addresses[0], wait)
        for connection in self._connections.values():
            if self.index == 0:
                connection.send({"start": True})
            threading.Thread(
                target=self._read, args=(connection,), name="failures", daemon=True
            ).start()

    def send_signal(self, number: int) -> None:
        """Reports to the chief a signal that this worker received."""
        self._send({"signal": number})

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

    def _accept_workers(self, server: socket.socket, wait: "_Wait") -> None:
        """Accepts a connection of every other worker."""
        while missing := set(range(1, self.count)) - set(self._connections):
            if not select.select([server], [], [], _RETRY_INTERVAL)[0]:
                wait.check(missing)
                continue
            connection = _Connection(server.accept()[0])
            index = None
            with contextlib.suppress(OSError, ValueError, AttributeError):
                index = (connection.receive() or {}).get("index")
            if isinstance(index, int) and 0 < index < self.count:
                connection.index = index
                self._connections[index] = connection  # in place of an earlier one that restarted
            else:
                connection.close()  # no worker of this run

    def _join_chief(self, address: str, wait: "_Wait") -> "_Connection":
        """Connects to the chief, which replies once all workers have."""
        host, port = _host_and_port(address)
        while True:
            with contextlib.suppress(OSError, ValueError):
                connection = _Connection(socket.create_connection((host, port), _REPLY_TIMEOUT))
                connection.send({"index": self.index})
                while not select.select([connection.socket], [], [], _RETRY_INTERVAL)[0]:
                    wait.check({0})
                if connection.receive() == {"start": True}:
                    return connection
                connection.close()  # the chief ended, and may be started again
            wait.check({0})
            time.sleep(_RETRY_INTERVAL)

    def _read(self, connection: "_Connection") -> None:
        """Receives the messages of a connection until it is closed."""
        connection.socket.settimeout(None)
        done = False
        try:
            while (message := connection.receive()) is not None:
                if "done" in message:
                    done = True
                elif "signal" in message:
                    self._take_signal(connection.index, message["signal"])
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
        advice = restart_advice() if message["code"] == LOST else ""
        write_to_stderr(f"{message['reason']}{advice}")
        for connection in informed:
            connection.ended.wait(1.0)  # exiting with unread data would discard what was just sent
        self._exit_process(message["code"])

    def _send(self, message: dict[str, Any], exclude: int | None = None) -> list["_Connection"]:
        """Sends a message to all connected workers but one; returns their connections."""
        receivers = [
            connection for index, connection in self._connections.items() if index != exclude
        ]
        for connection in receivers:
            connection.send(message)
        return receivers

    def _of_worker(self, index: int, predicate: str) -> str:
        return f"worker {index + 1} of {self.count} {predicate}"


def restart_advice() -> str:
    """Returns the end of a message about a lost worker."""
    return ". Start all workers again to resume from the newest checkpoint"


def write_to_stderr(text: str) -> None:
    """Writes a line at once: a print could wait for a lock that a stuck thread holds."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


class _Wait:
    """Time that a worker waits for the others at the start."""

    def __init__(self, index: int, addresses: Sequence[str], timeout: float, interval: float):
        self._worker = f"worker {index + 1} of {len(addresses)}"
        self._addresses, self._timeout, self._interval = addresses, timeout, interval
        self._began = time.monotonic()
        self._next_reminder = interval

    def check(self, missing: set[int]) -> None:
        """Logs a reminder if one is due.

        Raises:
            WorkerLost: once the time is over.
        """
        waited = time.monotonic() - self._began
        names = ", ".join(self._addresses[index] for index in sorted(missing))
        if waited >= self._timeout:
            error = f"{self._worker} has waited {waited:.0f} s for {names} and gives up"
            write_to_stderr(f"{error}{restart_advice()}")
            raise WorkerLost(error)
        if waited >= self._next_reminder:
            self._next_reminder += self._interval
            logger.info(
                f"{self._worker} has waited {waited:.0f} s for {names}, "
                f"and gives up after {self._timeout:.0f} s"
            )


def _listen(address: str) -> socket.socket:
    """Opens the port of an address on all interfaces."""
    _, port = _host_and_port(address)
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise DeviceError(
            f'devices.strategy: "multi_worker" can\'t open port {port}, which TF_CONFIG gives this '
            f"worker ({address}): {error}"
        ) from error


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class _Connection:
    """A connection to another worker that carries JSON objects, one a line.

    Args:
        connected: the socket.
        index: index of the other worker.
    """

    def __init__(self, connected: socket.socket, index: int = 0) -> None:
        self.socket, self.index, self.ended = connected, index, threading.Event()
        connected.settimeout(_REPLY_TIMEOUT)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # macOS and Windows have other names, and longer defaults
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._file = connected.makefile("rb")
        self._lock = threading.Lock()

    def receive(self) -> dict[str, Any] | None:
        """Returns the next object, or None if the other worker closed the connection."""
        line = self._file.readline(10_000)
        return json.loads(line) if line else None

    def send(self, message: dict[str, Any]) -> None:
        """Sends an object; one that the other worker can't take now is dropped."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Closes the connection for both sides."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
