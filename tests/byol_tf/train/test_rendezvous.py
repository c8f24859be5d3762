"""Workers that wait for each other."""

import socket
import subprocess
import sys
import time

import pytest

from byol_tf.errors import LOST, DeviceError, WorkerLost
from byol_tf.train.rendezvous import connect_workers
from tests.helpers.waiting import HANG
from tests.helpers.workers import ROOT, free_addresses

CHIEF = """
import sys
from byol_tf.train.rendezvous import connect_workers
print(list(connect_workers(0, sys.argv[1:])))
"""
WORKER = b'{"index": 1}\n'


def test_strangers_are_refused():
    addresses = free_addresses(2)
    host, port = addresses[0].split(":")
    chief = subprocess.Popen(
        [sys.executable, "-c", CHIEF, *addresses],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for hello in (b"GET / HTTP/1.1\n", b'{"index": 7}\n', b'"text"\n', WORKER):
            deadline = time.monotonic() + HANG
            while True:
                try:
                    stranger = socket.create_connection((host, int(port)))
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            with stranger:
                stranger.sendall(hello)
                if hello != WORKER:
                    assert stranger.recv(1) == b""  # closed
        assert chief.communicate(timeout=HANG)[0] == "[1]\n"
    finally:
        chief.kill()
        chief.communicate()


@pytest.mark.parametrize("index", [0, 1])
def test_missing_worker_is_named_and_waited_for_until_timeout(index, capfd, caplog):
    addresses = free_addresses(2)
    with caplog.at_level("INFO"), pytest.raises(WorkerLost, match=addresses[1 - index]) as raised:
        connect_workers(index, addresses, timeout=3.0, reminder_interval=0.1)
    assert raised.value.exit_code == LOST
    reminder = caplog.messages[0]
    assert reminder.startswith(f"worker {index + 1} of 2 has waited ")
    assert reminder.endswith(f" s for {addresses[1 - index]}, and gives up after 3 s")
    assert "and gives up. Start all workers again" in capfd.readouterr().err


@pytest.mark.parametrize("index", [0, 1])
def test_port_in_use_is_refused_with_its_address(index):
    addresses = free_addresses(2)
    host, port = addresses[index].split(":")
    with (
        socket.create_server((host, int(port))),
        pytest.raises(DeviceError, match=rf"can't open port {port}.*\({addresses[index]}\)"),
    ):
        connect_workers(index, addresses)
