"""The real command, with TensorFlow, where another worker is missing or ends at the start."""

import contextlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byol_tf.command_line import STOP_SIGNALS
from tests.helpers.waiting import HANG, wait_until
from tests.helpers.workers import ROOT, free_addresses, start_worker

OTHER = """
import sys, time
from byol_tf.clusters import Cluster
from byol_tf.train.rendezvous import connect_workers
index, stays, addresses = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
cluster = Cluster(tuple(addresses), index, "TF_CONFIG")
connections = connect_workers(cluster, timeout=600, silence=600)
print("connected", flush=True)
time.sleep(stays)
"""
"""A worker that meets the others, and never starts TensorFlow."""


def command(folder: Path, *overrides: str) -> list[str]:
    settings = [f"run.root={folder}/runs", "devices.strategy=multi_worker", *overrides]
    options = [option for setting in settings for option in ("--set", setting)]
    return [sys.executable, "-m", "byol_tf.train", "--config", "configs/demo.json", *options]


@contextlib.contextmanager
def started(line: list[str], addresses: list[str], index: int) -> Iterator[subprocess.Popen]:
    """Starts one worker, and kills it at the end."""
    process = start_worker(line, addresses, index)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def accepts(address: str) -> bool:
    """Whether a process listens there."""
    host, port = address.split(":")
    with socket.socket() as visitor:
        return visitor.connect_ex((host, int(port))) == 0


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, as shells have it, and all output of a process."""
    output, errors = process.communicate(timeout=HANG)
    code = process.returncode
    return code if code >= 0 else 128 - code, output + errors


def files_in(folder: Path) -> set[str]:
    """Names of all files below a folder."""
    return {path.name for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def waiting(folder: Path, index: int) -> Iterator[subprocess.Popen]:
    """A worker that waits for the other one, before TensorFlow starts."""
    addresses = free_addresses(2)
    host, port = addresses[0].split(":")
    with started(command(folder), addresses, index) as process:
        if index == 0:
            wait_until(lambda: accepts(addresses[0]), pause=0.1)
            yield process
        else:
            with socket.create_server((host, int(port))) as chief:
                chief.settimeout(HANG)
                connection, _ = chief.accept()
                with connection:
                    assert connection.recv(100) == b'{"index": 1}\n'
                    yield process


@pytest.mark.parametrize(
    ("index", "number"),
    [
        (0, signal.SIGTERM),
        *(
            pytest.param(index, number, marks=pytest.mark.long)
            for index in (0, 1)
            for number in STOP_SIGNALS
            if (index, number) != (0, signal.SIGTERM)
        ),
    ],
)
def test_signal_ends_a_worker_that_waits_for_the_others(tmp_path, index, number):
    with waiting(tmp_path, index) as process:
        process.send_signal(number)
        code, output = ended(process)
    assert code == 128 + number
    assert f"{signal.Signals(number).name}: exiting at once" in output
    assert not files_in(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_missing_worker_is_named_every_30_seconds_until_exit_75(tmp_path, index, host):
    addresses = free_addresses(2)
    port = addresses[1 - index].partition(":")[2]
    addresses[1 - index] = f"{host}:{port}"
    line = command(tmp_path, "devices.start_timeout_minutes=0.6")
    with started(line, addresses, index) as process:
        code, output = ended(process)
    assert code == 75
    waited = rf"worker {index + 1} of 2 has waited (\d+) s for {re.escape(host)}:{port}( \(.*\))?"
    reminder = re.search(rf"{waited}, and gives up after 36 s", output)
    assert int(reminder[1]) >= 30, output
    assert int(re.search(rf"{waited} and gives up", output)[1]) >= 36
    assert "Traceback" not in output
    assert not files_in(tmp_path)


@contextlib.contextmanager
def inside_tensorflow(
    folder: Path, index: int, stays: float, minutes: float
) -> Iterator[subprocess.Popen]:
    """A worker in which TensorFlow waits for one that doesn't start it."""
    addresses = free_addresses(2)
    line = command(folder, f"devices.worker_timeout_minutes={minutes}")
    other_line = [sys.executable, "-c", OTHER, str(1 - index), str(stays), *addresses]
    with (
        started(line, addresses, index) as process,
        subprocess.Popen(other_line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as other,
    ):
        try:
            assert other.stdout.readline() == "connected\n"
            yield process
        finally:
            other.kill()


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.long)])
def test_worker_that_ends_before_tensorflow_connects_is_lost(tmp_path, index):
    with inside_tensorflow(tmp_path, index, stays=0.0, minutes=100.0) as process:
        code, output = ended(process)
    assert code == 75, output
    assert f"worker {2 - index} of 2 was lost: its connection was closed" in output
    assert "Traceback" not in output
    assert not files_in(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
def test_worker_that_never_starts_tensorflow_is_given_up(tmp_path, index):
    with inside_tensorflow(tmp_path, index, stays=HANG, minutes=0.1) as process:
        code, output = ended(process)
    assert code == 75, output
    assert f"worker {index + 1} of 2 has waited 6 s for TensorFlow to connect all workers" in output
    assert "Traceback" not in output
    assert not files_in(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_ends_a_worker_inside_tensorflow(tmp_path, index, number):
    """Also SIGTERM, for which TensorFlow has a handler of its own there."""
    with inside_tensorflow(tmp_path, index, stays=HANG, minutes=10.0) as process:
        time.sleep(5.0)  # TensorFlow has started to connect by then, or starts to
        process.send_signal(number)
        code, output = ended(process)
    assert code == 128 + number, output
    assert not files_in(tmp_path)
