"""Rendezvous of the workers of a run, before TensorFlow starts.

They meet on the chief's port, which TensorFlow's server takes after it: TensorFlow itself would
wait for others without a word on who is missing. Their connections stay open, for `FailureChannel`.
"""

import contextlib
import ipaddress
import json
import logging
import select
import socket
import threading
import time
from typing import Any

from byol_tf.clusters import Cluster
from byol_tf.errors import LOST, DeviceError, WorkerLost
from byol_tf.native_output import write_to_terminal

logger = logging.getLogger(__name__)

_REMINDER_INTERVAL = 30.0
_RETRY_INTERVAL = 1.0
_REPLY_TIMEOUT = 5.0


def connect_workers(
    cluster: Cluster,
    timeout: float,
    silence: float,
    reminder_interval: float = _REMINDER_INTERVAL,
) -> "dict[int, Connection]":
    """Waits until all workers of the run are connected to the chief.

    Args:
        cluster: the workers of the run.
        timeout: seconds to wait.
        silence: seconds after which a connection to a machine that is cut off is closed.
        reminder_interval: seconds between two log lines that name who is missing.

    Returns:
        On the chief a connection to each other worker, by its index; on these one to the chief.

    Raises:
        DeviceError: if this worker's port is in use.
        WorkerLost: if a worker is still missing after `timeout`.
    """
    wait = _Wait(cluster, timeout, reminder_interval)
    count = len(cluster.addresses)
    with _listen(cluster) as server:  # on other workers: is the port free?
        connections = _accept_workers(server, count, silence, wait) if cluster.chief else {}
    if not cluster.chief:
        return {0: _join_chief(cluster, silence, wait)}
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
    write_to_terminal(f"\n{reason}{advice}\n")


class Connection:
    """A connection to another worker that carries JSON objects, one a line.

    Args:
        connected: the socket.
        silence: seconds without an answer of the other machine after which the system closes the
            connection: half of them idle, then five probes.
        index: index of the other worker.
    """

    def __init__(self, connected: socket.socket, silence: float, index: int = 0) -> None:
        self.socket, self.index, self.ended = connected, index, threading.Event()
        connected.settimeout(_REPLY_TIMEOUT)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = {"TCP_KEEPIDLE": silence / 2, "TCP_KEEPINTVL": silence / 10, "TCP_KEEPCNT": 5}
        for name, value in options.items():
            if hasattr(socket, name):  # macOS and Windows have other names, and longer defaults
                number = min(max(round(value), 1), 32_767)  # Linux' limits
                connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), number)
        self._file = connected.makefile("rb")
        self._lock = threading.Lock()

    def receive(self) -> dict[str, Any] | None:
        """Returns the next object, or None if the other worker closed the connection.

        Raises:
            ValueError: if a line is something else.
        """
        line = self._file.readline(10_000)
        if not line:
            return None
        try:
            message = json.loads(line)
        except RecursionError as error:
            raise ValueError("deeply nested") from error
        if not isinstance(message, dict):
            raise ValueError(f"expected a JSON object; received {message!r}")
        return message

    def send(self, message: dict[str, Any]) -> None:
        """Sends an object; one that the other worker can't take now is dropped."""
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(json.dumps(message).encode() + b"\n", socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Closes the connection for both sides."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def _accept_workers(
    server: socket.socket, count: int, silence: float, wait: "_Wait"
) -> dict[int, Connection]:
    """Accepts a connection of every other worker."""
    connections: dict[int, Connection] = {}
    while missing := set(range(1, count)) - set(connections):
        sockets = [connection.socket for connection in connections.values()]
        readable = select.select([server, *sockets], [], [], _RETRY_INTERVAL)[0]
        for index, connection in list(connections.items()):
            if connection.socket in readable:  # it has ended, as it has nothing to send yet
                connections.pop(index).close()
        if server not in readable:
            wait.check(missing)
            continue
        connection = Connection(server.accept()[0], silence)
        sender: Any = None
        with contextlib.suppress(OSError, ValueError):
            sender = (connection.receive() or {}).get("index")
        if type(sender) is int and 0 < sender < count:
            connection.index = sender
            connections[sender] = connection  # in place of an earlier one that restarted
        else:
            connection.close()  # no worker of this run
    return connections


def _join_chief(cluster: Cluster, silence: float, wait: "_Wait") -> Connection:
    """Connects to the chief, which replies once all workers have."""
    host, port = _host_and_port(cluster.addresses[0])
    others = set(range(1, len(cluster.addresses))) - {cluster.index}
    while True:
        problem = ""
        try:
            connected = socket.create_connection((host, port), _REPLY_TIMEOUT)
            connection = Connection(connected, silence)
            connection.send({"index": cluster.index})
            while not select.select([connection.socket], [], [], _RETRY_INTERVAL)[0]:
                wait.check(others or {0})
            if connection.receive() == {"start": True}:
                return connection
            connection.close()  # the chief ended, and may be started again
        except socket.gaierror as error:
            problem = f" ({error.strerror})"
        except (OSError, ValueError):
            pass
        wait.check({0}, problem)
        time.sleep(_RETRY_INTERVAL)


class _Wait:
    """Time that a worker waits for the others at the start."""

    def __init__(self, cluster: Cluster, timeout: float, interval: float):
        self._worker = f"worker {cluster.index + 1} of {len(cluster.addresses)}"
        self._addresses, self._timeout, self._interval = cluster.addresses, timeout, interval
        self._began = time.monotonic()
        self._next_reminder = interval

    def check(self, missing: set[int], problem: str = "") -> None:
        """Logs a reminder if one is due.

        Args:
            missing: indices of the workers that are waited for.
            problem: why, in brackets, where that is known.

        Raises:
            WorkerLost: once the time is over.
        """
        waited = time.monotonic() - self._began
        names = ", ".join(self._addresses[index] for index in sorted(missing)) + problem
        if waited >= self._timeout:
            error = f"{self._worker} has waited {waited:.0f} s for {names} and gives up"
            report_exit(LOST, error)
            raise WorkerLost(error)
        if waited >= self._next_reminder:
            self._next_reminder += self._interval
            logger.warning(  # workers that aren't the chief log nothing less
                f"{self._worker} has waited {waited:.0f} s for {names}, "
                f"and gives up after {self._timeout:.0f} s"
            )


def _listen(cluster: Cluster) -> socket.socket:
    """Opens the port of this worker's address, on that address alone where others use it too."""
    address = cluster.addresses[cluster.index]
    host, port = _host_and_port(address)
    try:
        own = _own_address(host)
        if own is not None:
            return socket.create_server((own, port), family=_family(own))
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        return socket.create_server(("", port), family=family, dualstack_ipv6=dual)
    except OSError as error:
        raise DeviceError(
            f'devices.strategy: "multi_worker" can\'t open port {port}, which {cluster.origin} '
            f"gives this worker ({address}): {error}"
        ) from error


def _own_address(host: str) -> str | None:
    """Returns the IP address of a host name, or None where others reach this machine by another.

    That is so behind a router and in containers, where the address is of no interface here; and
    where /etc/hosts has a machine's own name as a loopback address, or doesn't know it.
    """
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
        with socket.socket(_family(address)) as probe:
            probe.bind((address, 0))
    except OSError:
        return None
    is_name = host != address and host != "localhost"
    return None if is_name and ipaddress.ip_address(address).is_loopback else address


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
