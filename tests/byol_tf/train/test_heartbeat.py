"""Processes that watch each other, without TensorFlow: real ones, over loopback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byol_tf.errors import LOST
from byol_tf.train import heartbeat
from byol_tf.train.heartbeat import Heartbeat

ROOT = Path(__file__).parents[3]
PROCESS = """
import sys, time
from byol_tf.train import heartbeat
from byol_tf.train.heartbeat import Heartbeat
index, port, secret, silence = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
heartbeat.SILENCE = silence
beat = Heartbeat(index, 3)
if index == 0:
    beat.on_signal = lambda number: print("signal", number, flush=True)
    print(*beat.listen(), flush=True)
else:
    beat.connect("127.0.0.1", port, secret)
print("here", flush=True)
for line in sys.stdin:
    if line.strip() == "sleep":
        time.sleep(1000)
    exec(line)
"""


class Three:
    """A first process and two that have joined it, each of which does the lines of Python that it
    is told."""

    def __init__(self, silence: float = 30.0):
        self.silence, self.all = silence, []
        first = self._start(0, 0, 0)
        self.port, self.secret = map(int, first.stdout.readline().split())
        for index in (1, 2):
            self._start(index, self.port, self.secret)
        for process in self.all:
            assert process.stdout.readline() == "here\n"
        time.sleep(0.2)  # until the first one has read who they are
        self.tell(0, 1, 2, line="beat.start()")

    def _start(self, *arguments: int) -> subprocess.Popen:
        words = [sys.executable, "-c", PROCESS, *map(str, arguments), str(self.silence)]
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
        }
        self.all.append(subprocess.Popen(words, cwd=ROOT, **pipes))
        return self.all[-1]

    def tell(self, *indices: int, line: str) -> None:
        for index in indices:
            self.all[index].stdin.write(line + "\n")
            self.all[index].stdin.flush()

    def end(self, index: int, seconds: float = 10.0) -> tuple[int, str]:
        """(exit code, standard error)."""
        code = self.all[index].wait(seconds)
        return code, self.all[index].stderr.read()

    def close(self) -> None:
        for process in self.all:
            process.kill()
            process.communicate()


@pytest.fixture
def three(request):
    all_three = Three(getattr(request, "param", 30.0))
    yield all_three
    all_three.close()


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_one_is_killed_and_the_others_say_which_and_end(three, lost):
    three.all[lost].kill()
    began = time.monotonic()
    for index in {0, 1, 2} - {lost}:
        code, text = three.end(index)
        assert code == LOST == 75
        assert (
            f"machine {lost + 1} of 3 was lost: its connection was closed. Start all machines again"
            in text
        )
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("three", [3.0], indirect=True)
@pytest.mark.parametrize("lost", [0, 2])
def test_one_is_stopped_and_ends_too_when_it_goes_on(three, lost):
    three.all[lost].send_signal(signal.SIGSTOP)
    for index in {0, 1, 2} - {lost}:
        code, text = three.end(index)
        assert code == LOST
        assert f"machine {lost + 1} of 3 was lost: nothing was heard from it for 3 seconds" in text
    three.all[lost].send_signal(signal.SIGCONT)
    code, text = three.end(lost)
    assert code == LOST
    assert "was lost" in text


@pytest.mark.parametrize("three", [3.0], indirect=True)
def test_a_short_stop_of_one_or_of_all_ends_nobody(three):
    """As where a laptop's lid or a hypervisor stops all of them: the silence isn't the others'."""
    three.all[1].send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    three.all[1].send_signal(signal.SIGCONT)
    time.sleep(0.5)
    for process in three.all:
        process.send_signal(signal.SIGSTOP)
    time.sleep(4.0)
    for process in three.all:
        process.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    assert [process.poll() for process in three.all] == [None] * 3


def test_one_gives_up_and_the_others_end_as_it_says(three):
    three.tell(1, line="beat.give_up(143, 'was stopped by SIGTERM')")
    for index in (0, 2):
        assert three.end(index) == (143, "\nmachine 2 of 3 was stopped by SIGTERM\n")


def test_one_that_is_stuck_ends_all(three):
    three.tell(2, line=f"beat.end({LOST}, 'has waited')")
    for index in range(3):
        code, text = three.end(index)
        assert code == LOST
        assert "machine 3 of 3 has waited" in text


def test_those_who_leave_are_not_lost(three):
    three.tell(0, 1, 2, line="beat.leave()")
    three.tell(0, 1, 2, line="raise SystemExit")
    assert [three.end(index) for index in range(3)] == [(0, "")] * 3


def test_a_signal_is_passed_on_to_the_first(three):
    three.tell(1, line="beat.say_signal(15)")
    assert three.all[0].stdout.readline() == "signal 15\n"


def test_a_signal_before_the_first_step_ends_all(three):
    three.tell(0, line="beat.on_signal = None")
    time.sleep(0.3)
    three.tell(1, line="beat.say_signal(15)")
    for index in range(3):
        assert three.end(index) == (143, "\nmachine 2 of 3 was stopped by SIGTERM\n")


def test_a_stranger_is_not_listened_to(three):
    stranger = Heartbeat(1, 3, end=lambda code: None)
    stranger.connect("127.0.0.1", three.port, three.secret + 1)
    stranger.give_up(143, "is nobody")
    time.sleep(0.5)
    stranger.leave()
    assert [process.poll() for process in three.all] == [None] * 3


def test_a_closed_port_is_an_error_of_the_one_who_knocks(three):
    with pytest.raises(OSError):
        Heartbeat(1, 3).connect("127.0.0.1", 1, 0)


def test_the_silence_is_well_above_a_beat():
    """So that a machine that is ten times slower isn't taken for a lost one; and noticed within a
    minute."""
    assert 10 * heartbeat._BEAT < heartbeat.SILENCE < 60
    assert os.EX_TEMPFAIL == LOST
