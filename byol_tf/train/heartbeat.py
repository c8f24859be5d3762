"""How the processes of one run on several machines know of each other's end. Needs no TensorFlow.

Each says once a second that it lives, over a connection of its own to the first one, which passes
on what the others have to know. One that is killed closes its connection; one that is stopped, or
cut off, falls silent. Either way the others, who may be waiting for it inside TensorFlow for ever,
say which one was lost and end with `LOST`, so that whoever started them can start all of them
again.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

from byol_tf.devices import Cluster
from byol_tf.errors import LOST
from byol_tf.runs.process_exit import exit_now

SILENCE = 30.0
"""Seconds without a word after which a process counts as lost. A machine that is ten times slower
than the others still speaks."""
_BEAT = 1.0


class Heartbeat:
    """One process's side of it. Does nothing until `start`.

    Args:
        index: of this process among those of the run, counted from 0; 0 is the one that the others
            connect to.
        count: of processes.
        end: ends this process at once, whatever its other threads do: (exit code) -> never.

    Attributes:
        on_signal: called with the number of a signal that another process received (on the first
            process only). None where no step is being made, so that nothing is to be saved: then
            all end with the exit code that they have after a save.
    """

    def __init__(self, index: int, count: int, end: Callable[[int], None] = exit_now):
        self.index, self.count, self._end = index, count, end
        self.on_signal: Callable[[int], None] | None = None
        self._lines: dict[int, _Line] = {}
        self._lock = threading.Lock()
        self._over, self._judged = threading.Event(), threading.Event()
        self._server: socket.socket | None = None

    def listen(self) -> tuple[int, int]:
        """On the first process: opens a port for the others; returns it and a number that tells
        them from strangers."""
        dual = socket.has_dualstack_ipv6()
        self._server = socket.create_server(
            ("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual
        )
        self._secret = secrets.randbits(60)
        threading.Thread(target=self._accept, name="heartbeat", daemon=True).start()
        return self._server.getsockname()[1], self._secret

    def connect(self, host: str, port: int, secret: int, timeout: float = 10.0) -> None:
        """On another process: joins the first one. `OSError` if it can't be reached there."""
        line = _Line(0, socket.create_connection((host, port), timeout))
        line.say({"index": self.index, "secret": secret})
        self._lines[0] = line
        threading.Thread(target=self._read, args=(line,), name="heartbeat", daemon=True).start()

    def start(self) -> None:
        """From here on the others are watched; to be called when all have come."""
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def say_signal(self, number: int) -> None:
        """Tells the first process of a signal that came here: a scheduler may take one machine away
        alone."""
        self._tell({"signal": number})

    def give_up(self, code: int, why: str) -> None:
        """Tells the others that this process ends, and how; they end too, with the same code. To be
        called before it ends."""
        self._over.set()
        self._tell({"code": code, "why": f"machine {self.index + 1} of {self.count} {why}"})

    def end(self, code: int, why: str) -> None:
        """Says why this process can't go on, here and to the others, and ends it whatever its other
        threads wait for."""
        self._pass_on(
            self.index, {"code": code, "why": f"machine {self.index + 1} of {self.count} {why}"}
        )

    def leave(self) -> None:
        """This process is done, and so are the others: nobody is watched any more."""
        self._over.set()
        self._tell({"left": True})
        with self._lock:
            lines = list(self._lines.values())
        for line in lines:
            line.close()
        if self._server is not None:
            self._server.close()

    def wait_for_verdict(self, seconds: float = SILENCE + 10.0) -> None:
        """After an error that a lost process may have caused: gives the watch the time to notice,
        which ends this process. Returns if it was nobody's end."""
        if self._lines and self._judged.wait(seconds):
            time.sleep(10.0)  # it says why, and ends this process meanwhile

    def _tell(self, message: dict, but: int | None = None) -> list["_Line"]:
        """Says it to all but one; returns the connections."""
        with self._lock:
            lines = [line for index, line in self._lines.items() if index != but]
        for line in lines:
            line.say(message)
        return lines

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: everybody has left
            while True:
                connection, _ = self._server.accept()
                threading.Thread(
                    target=self._greet, args=(connection,), name="heartbeat", daemon=True
                ).start()

    def _greet(self, connection: socket.socket) -> None:
        connection.settimeout(10.0)
        line = _Line(0, connection)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            hello = line.next()
            if (
                hello.get("secret") == self._secret
                and 0 < (index := hello.get("index", 0)) < self.count
            ):
                line.index = index
                with self._lock:
                    self._lines[index] = line
                self._read(line)
                return
        line.close()  # a stranger

    def _read(self, line: "_Line") -> None:
        """Hears one process until its end."""
        line.connection.settimeout(None)
        try:
            while message := line.next():
                line.quiet = 0.0
                if "left" in message:
                    line.left = True
                elif "signal" in message:
                    self._take_signal(line.index, message["signal"])
                elif "code" in message:
                    self._pass_on(line.index, message)
        except (OSError, ValueError):
            pass  # reset, or cut off in the middle of a line: as lost as one that is closed
        line.gone.set()
        if not line.left:
            self._lost(line.index, "its connection was closed")

    def _take_signal(self, index: int, number: int) -> None:
        if self.on_signal is not None:
            self.on_signal(number)
        else:
            name = signal.Signals(number).name
            self._pass_on(
                index,
                {
                    "code": 128 + number,
                    "why": f"machine {index + 1} of {self.count} was stopped by {name}",
                },
                back=True,
            )

    def _watch(self) -> None:
        while not self._over.wait(_BEAT):
            with self._lock:
                lines = [line for line in self._lines.values() if not line.left]
            for line in lines:
                line.say({"alive": True})
                # Counted in beats of this process, so that one that was itself stopped for a while
                # doesn't take the others for silent.
                line.quiet += _BEAT
                if line.quiet > SILENCE:
                    self._lost(line.index, f"nothing was heard from it for {SILENCE:g} seconds")

    def _lost(self, index: int, why: str) -> None:
        self._pass_on(
            index, {"code": LOST, "why": f"machine {index + 1} of {self.count} was lost: {why}"}
        )

    def _pass_on(self, source: int, message: dict, back: bool = False) -> None:
        """Says why the run can't go on, to the others too (with `back` also to the one that it
        comes from), and ends this process."""
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
        self._judged.set()
        told = self._tell(message, but=None if back else source)
        again = (
            ""
            if message["code"] != LOST
            else ". Start all machines again to go on from the newest checkpoint"
        )
        os.write(
            2, f"\n{message['why']}{again}\n".encode()
        )  # a print could wait for a lock that another thread holds
        for line in told:
            line.gone.wait(
                1.0
            )  # a process that ends with something unread takes back what it has just said
        self._end(message["code"])


class _Line:
    """A connection to another process, on which JSON objects go, a line each."""

    def __init__(self, index: int, connection: socket.socket):
        self.index, self.connection = index, connection
        self.quiet, self.left, self.gone = 0.0, False, threading.Event()
        self._file = connection.makefile("rb")
        self._writing = threading.Lock()

    def next(self) -> dict | None:
        """The next object; None where the other has closed."""
        text = self._file.readline(10_000)
        return json.loads(text) if text else None

    def say(self, message: dict) -> None:
        """Sends an object, or nothing to one that is gone or doesn't read: the watch will tell."""
        with self._writing, contextlib.suppress(OSError):
            self.connection.sendall(json.dumps(message).encode() + b"\n", *_NO_WAIT)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


_NO_WAIT = (socket.MSG_DONTWAIT,) if hasattr(socket, "MSG_DONTWAIT") else ()


_MEETING = 600.0
_REMINDER = 30.0


@contextlib.contextmanager
def awaited(
    cluster: Cluster,
    limit: float = _MEETING,
    reminder: float = _REMINDER,
    end: Callable[[int], None] = os._exit,
) -> Iterator[None]:
    """While this is entered, the others are awaited: TensorFlow would do so silently and for ever,
    though one has failed already.

    Args:
        cluster: of this process.
        limit: seconds after which this process ends, with exit code `LOST`: machines are rarely
            started at the same moment, and some have to load their software first.
        reminder: seconds between two lines that say so.
        end: ends this process.
    """
    others = ", ".join(
        address for index, address in enumerate(cluster.addresses) if index != cluster.index
    )
    met = threading.Event()

    def remind() -> None:
        waited = 0.0
        while not met.wait(reminder):
            waited += reminder
            over = waited >= limit
            what = "ended. Start all machines again" if over else f"ends at {limit:g} s"
            text = (
                f"\nmachine {cluster.index + 1} of {len(cluster.addresses)} has waited "
                f"{waited:g} s for {others}; {what}\n"
            )
            os.write(2, text.encode())
            if over:
                end(LOST)
                return

    threading.Thread(target=remind, name="meeting", daemon=True).start()
    try:
        yield
    finally:
        met.set()
