"""What Python imports by itself when this folder is on PYTHONPATH: a process, and its Python
children, may ask nothing of the network.

Each try that isn't for this machine is refused, and written into the file that BYOL_TF_TEST_TRIES
names, whoever catches the error. Seen is what Python's `socket` does, whichever library calls it;
not what C++ inside TensorFlow might do by itself.
"""

import os
import sys

_HERE = ("127.", "::1", "localhost")
_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
"""Audit event -> which of its arguments is the address or the name."""


def _refuse(event: str, arguments: tuple) -> None:
    if event not in _EVENTS:
        return
    address = arguments[_EVENTS[event]]
    host = address[0] if isinstance(address, tuple) else address
    # No host: to listen, or a socket that is connected already. A plain path: between processes of
    # this machine.
    if (
        not host
        or (isinstance(address, str | bytes) and event == "socket.connect")
        or str(host).startswith(_HERE)
    ):
        return
    with open(os.environ["BYOL_TF_TEST_TRIES"], "a", encoding="utf-8") as file:
        file.write(f"{event} {address}\n")
    raise OSError(f"no network in this test: {event} {address}")


sys.addaudithook(_refuse)
