"""Workers that wait for each other."""

import json
import socket
import subprocess
import sys
import time

import pytest

from byol_tf.clusters import Cluster
from byol_tf.errors import LOST, DeviceError, WorkerLost
from byol_tf.train import rendezvous
from byol_tf.train.rendezvous import connect_workers
from tests.helpers.waiting import HANG, wait_until
from tests.helpers.workers import ROOT, free_addresses

CHIEF = """
import sys
from byol_tf.clusters import Cluster
from byol_tf.train.rendezvous import connect_workers
cluster = Cluster(tuple(sys.argv[1:]), 0, "TF_CONFIG")
print(list(connect_workers(cluster, timeout=600, silence=600)))
"""
WORKER = b'{"index": 1}\n'
STRANGE = b'{"index": true}\n'
DEEP = b'{"a":' * 1_500 + b"1" + b"}" * 1_500 + b"\n"


def cluster(index: int, *addresses: str) -> Cluster:
    return Cluster(addresses, index, "TF_CONFIG")


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
        for hello in (b"GET / HTTP/1.1\n", b'{"index": 7}\n', b'"text"\n', STRANGE, DEEP, WORKER):
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
        connect_workers(cluster(index, *addresses), 3.0, silence=600.0, reminder_interval=0.1)
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
        pytest.raises(
            DeviceError, match=rf"can't open port {port}, which TF_CONFIG .*\({addresses[index]}\)"
        ),
    ):
        connect_workers(cluster(index, *addresses), timeout=600.0, silence=600.0)


def test_unresolvable_chief_is_waited_for_and_named(caplog):
    """Its name may be known later, as in a cluster that is just being started."""
    addresses = ["no-such-host.invalid:2222", free_addresses(1)[0]]
    with caplog.at_level("INFO"), pytest.raises(WorkerLost, match=r"no-such-host.invalid:2222 \("):
        connect_workers(cluster(1, *addresses), 3.0, silence=600.0, reminder_interval=0.1)
    assert "s for no-such-host.invalid:2222 (" in caplog.messages[0]


def test_worker_that_ends_while_others_are_awaited_is_awaited_again():
    addresses = free_addresses(3)
    host, port = addresses[0].split(":")

    def join(index: int) -> socket.socket:
        wait_until(lambda: not is_free(addresses[0]))
        connected = socket.create_connection((host, int(port)))
        connected.sendall(b'{"index": %d}\n' % index)
        return connected

    process = subprocess.Popen(
        [sys.executable, "-c", CHIEF, *addresses], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        with join(1):
            time.sleep(2.0)  # the chief has taken it by then, or takes the next one in its place
        with join(2) as second:
            second.settimeout(2.0)
            with pytest.raises(TimeoutError):
                second.recv(1)
            with join(1) as first:
                assert first.recv(100) == second.recv(100) == b'{"start": true}\n'
        assert sorted(json.loads(process.communicate(timeout=HANG)[0])) == [1, 2]
    finally:
        process.kill()
        process.communicate()


def is_free(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as visitor:
        return visitor.connect_ex((host, int(port))) != 0


@pytest.mark.parametrize(
    ("host", "bound"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("::1", "::1"),
        ("192.0.2.1", "::"),  # of no interface here, as behind a router
        ("no-such-host.invalid", "::"),
    ],
)
def test_port_is_opened_on_the_address_of_tf_config(host, bound):
    if ":" in bound and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    port = free_addresses(1)[0].partition(":")[2]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with rendezvous._listen(cluster(0, address)) as server:
        assert server.getsockname()[0] in (bound, "::1" if host == "localhost" else bound)


def test_own_name_as_loopback_address_is_reached_from_others(monkeypatch):
    """As Debian's /etc/hosts has it."""
    own = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: own)
    assert rendezvous._own_address("node-1") is None


def test_connection_is_closed_after_the_silence():
    with socket.socket() as plain:
        rendezvous.Connection(plain, silence=300.0)
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, count = (plain.getsockopt(socket.IPPROTO_TCP, each) for each in options)
        assert idle + interval * count == 300
