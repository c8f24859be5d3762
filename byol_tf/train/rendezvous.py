"""Rendezvous of the workers of a run, before TensorFlow starts.

They meet on the port that `TF_CONFIG` gives the chief, which TensorFlow's server takes after it:
while TensorFlow itself waits for other workers no Python thread runs, so nothing could remind, give
up or react to a signal. Their connections stay open, for `FailureChannel`.
"""

import contextlib
import json
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

from byol_tf.errors import LOST, DeviceError, WorkerLost

logger = logging.getLogger(__name__)

START_TIMEOUT = 600.0
"""Seconds that workers wait for each other: they are rarely started at the same moment."""
_REMINDER_INTERVAL = 30.0
_RETRY_INTERVAL = 1.0
_REPLY_TIMEOUT = 5.0
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds idle before a probe, seconds between probes, unanswered probes: 25 s in all."""


def connect_workers(
    index: int,
    addresses: Sequence[str],
    timeout: float = START_TIMEOUT,
    reminder_interval: float = _REMINDER_INTERVAL,
) -> "dict[int, Connection]":
    """Waits until all workers of the run are connected to the chief.

    Args:
        index: index of this worker, from 0; 0 is the chief.
        addresses: host:port of each worker, the chief's first.
        timeout: seconds to wait.
        reminder_interval: seconds between two log lines that name who is missing.

    Returns:
        On the chief a connection to each other worker, by its index; on these one to the chief.

    Raises:
        DeviceError: if this worker's port is in use.
        WorkerLost: if a worker is still missing after `timeout`.
    """
    wait = _Wait(index, addresses, timeout, reminder_interval)
    with _listen(addresses[index]) as server:  # on other workers: is the port free?
        connections = _accept_workers(server, len(addresses), wait) if index == 0 else {}
    if index != 0:
        return {0: _join_chief(addresses, index, wait)}
    for connection in connections.values():
        connection.send({"start": True})
    return connections


def report_exit(code: int, reason: str) -> None:
    """Writes why this process exits to standard error.

    At once: a print could wait for a lock that a stuck thread holds.
    """
    advice = (
        ". Start all workers again to resume from the newest checkpoint" if code == LOST else ""
    )
    with contextlib.suppress(OSError):
        os.write(2, f"\n{reason}{advice}\n".encode())


class Connection:
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


def _accept_workers(server: socket.socket, count: int, wait: "_Wait") -> dict[int, Connection]:
    """Accepts a connection of every other worker."""
    connections: dict[int, Connection] = {}
    while missing := set(range(1, count)) - set(connections):
        if not select.select([server], [], [], _RETRY_INTERVAL)[0]:
            wait.check(missing)
            continue
        connection = Connection(server.accept()[0])
        index = None
        with contextlib.suppress(OSError, ValueError, AttributeError):
            index = (connection.receive() or {}).get("index")
        if isinstance(index, int) and 0 < index < count:
            connection.index = index
            connections[index] = connection  # in place of an earlier one that restarted
        else:
            connection.close()  # no worker of this run
    return connections


def _join_chief(addresses: Sequence[str], index: int, wait: "_Wait") -> Connection:
    """Connects to the chief, which replies once all workers have."""
    host, port = _host_and_port(addresses[0])
    others = set(range(1, len(addresses))) - {index}
    while True:
        with contextlib.suppress(OSError, ValueError):
            connection = Connection(socket.create_connection((host, port), _REPLY_TIMEOUT))
            connection.send({"index": index})
            while not select.select([connection.socket], [], [], _RETRY_INTERVAL)[0]:
                wait.check(others or {0})
            if connection.receive() == {"start": True}:
                return connection
            connection.close()  # the chief ended, and may be started again
        wait.check({0})
        time.sleep(_RETRY_INTERVAL)


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
            report_exit(LOST, error)
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
