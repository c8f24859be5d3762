"""Worker processes without TensorFlow that are connected over loopback."""

import os
import signal
import subprocess
import sys

import pytest

from byol_tf.errors import LOST
from byol_tf.train.failure_channel import FailureChannel
from tests.helpers.waiting import HANG
from tests.helpers.workers import ROOT, free_addresses

WORKER = """
import sys, time
from byol_tf.clusters import Cluster
from byol_tf.train.failure_channel import FailureChannel
from byol_tf.train.rendezvous import connect_workers
index, addresses = int(sys.argv[1]), tuple(sys.argv[2:])
channel = FailureChannel(index, len(addresses))
if index == 0:
    channel.on_signal = lambda number: print("signal", number, flush=True)
    channel.on_lost_photo = lambda path, reason: print("lost", path, reason, flush=True)
channel.start(connect_workers(Cluster(addresses, index, "TF_CONFIG"), timeout=600, silence=600))
print("connected", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


class ThreeWorkers:
    """A chief and two workers, each of which runs the lines of Python that it is sent."""

    def __init__(self):
        addresses = free_addresses(3)
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(index), *addresses],
                cwd=ROOT,
                text=True,
                **pipes,
            )
            for index in range(3)
        ]
        for process in self.processes:
            assert process.stdout.readline() == "connected\n"

    def send(self, *indices: int, line: str) -> None:
        for index in indices:
            self.processes[index].stdin.write(line + "\n")
            self.processes[index].stdin.flush()

    def run(self, index: int, line: str) -> None:
        """Returns once the worker has run the line."""
        self.send(index, line=line)
        assert self.processes[index].stdout.readline() == "done\n"

    def exit_of(self, index: int) -> tuple[int, str]:
        """Exit code and standard error of a worker, once it has ended."""
        code = self.processes[index].wait(HANG)
        return code, self.processes[index].stderr.read()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def three():
    workers = ThreeWorkers()
    yield workers
    workers.close()


@pytest.mark.parametrize("killed", [0, 1, 2])
def test_killed_worker_is_named_and_others_exit(three, killed):
    three.processes[killed].kill()
    for index in {0, 1, 2} - {killed}:
        code, text = three.exit_of(index)
        assert code == LOST == os.EX_TEMPFAIL == 75
        assert (
            f"worker {killed + 1} of 3 was lost: its connection was closed. Start all workers again"
            in text
        )


def test_stopped_worker_exits_once_continued_if_chief_is_gone(three):
    three.processes[2].send_signal(signal.SIGSTOP)
    three.processes[0].kill()
    three.processes[2].send_signal(signal.SIGCONT)
    code, text = three.exit_of(2)
    assert code == LOST
    assert "worker 1 of 3 was lost" in text


def test_announced_exit_code_is_that_of_all(three):
    three.send(1, line="channel.announce(143, 'was stopped by SIGTERM')")
    for index in (0, 2):
        assert three.exit_of(index) == (143, "\nworker 2 of 3 was stopped by SIGTERM\n")


@pytest.mark.parametrize("index", [0, 2])
def test_abort_ends_all_workers(three, index):
    three.send(index, line=f"channel.abort({LOST}, 'has waited')")
    for other in range(3):
        code, text = three.exit_of(other)
        assert code == LOST
        assert f"worker {index + 1} of 3 has waited" in text


def test_closed_channel_reports_no_loss(three):
    three.send(0, 1, 2, line="channel.close()")
    three.send(0, 1, 2, line="raise SystemExit")
    assert [three.exit_of(index) for index in range(3)] == [(0, "")] * 3


def test_signal_reaches_the_chief(three):
    three.send(1, line="channel.send_signal(15)")
    assert three.processes[0].stdout.readline() == "signal 15\n"


def test_lost_photo_reaches_the_chief(three):
    three.send(1, line="channel.send_lost_photo('a b.jpg', 'truncated')")
    assert three.processes[0].stdout.readline() == "lost a b.jpg truncated\n"


def test_signal_ends_all_while_no_step_runs(three):
    three.run(0, "channel.on_signal = None")
    three.send(1, line="channel.send_signal(15)")
    for index in range(3):
        assert three.exit_of(index) == (143, "\nworker 2 of 3 was stopped by SIGTERM\n")


def test_channel_without_connections_does_nothing():
    channel = FailureChannel(0, 1, exit_process=pytest.fail)
    channel.wait_for_failure(HANG)
    channel.announce(LOST, "is alone")
    channel.close()
