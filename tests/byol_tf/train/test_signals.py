"""Signals, sent to real processes."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byol_tf.errors import Interrupted
from byol_tf.train.signals import NUMBERS

ROOT = Path(__file__).parents[3]
WATCHING = """
import hashlib, sys, time
from byol_tf.train.signals import SignalWatch
with SignalWatch("stopping soon") as watch:
    print("watching", flush=True)
    if sys.argv[1] == "inside C":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)  # minutes in which Python gets no turn in this thread
    while watch.received is None:
        time.sleep(0.01)
    print("received", int(watch.received), flush=True)
    time.sleep(float(sys.argv[2]))
print("left", flush=True)
"""


def listening() -> None:
    """In the new process: nothing is ignored, as it may be under `nohup` or in a shell's
    background."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def watching(
    where: str = "in Python", stays: float = 0.0, before=listening, text: str = WATCHING
) -> Iterator[subprocess.Popen]:
    """A process that watches already; it doesn't outlive a test that fails."""
    line = [sys.executable, "-c", text, where, str(stays)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=ROOT, preexec_fn=before, **pipes) as process:
        try:
            assert process.stdout.readline() == "watching\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_is_noted_and_the_process_goes_on(number):
    with watching() as process:
        process.send_signal(number)
        printed, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert printed.split() == ["received", str(int(number)), "left"]
    assert f"{signal.Signals(number).name}: stopping soon; once more ends at once" in errors
    assert Interrupted(number, 1, 2, True).exit_code == 128 + number


def test_a_second_of_the_same_kind_ends_at_once_and_one_of_another_kind_does_not():
    with watching(stays=60.0) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"received {int(signal.SIGTERM)}\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) == 128 + signal.SIGTERM


def test_a_second_one_ends_also_a_thread_that_is_inside_c():
    with watching("inside C") as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 128 + signal.SIGINT


ENDING = """
import time
from byol_tf.train.signals import SignalWatch
with SignalWatch(None):
    with SignalWatch("stopping soon") as inner:
        print("watching", flush=True)
        while inner.received is None:
            time.sleep(0.01)
    print("received", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_where_no_step_is_made_the_first_ends_at_once(number):
    """Also after a watch inside that has taken note of one of the same kind."""
    with watching(text=ENDING) as process:
        process.send_signal(number)
        assert process.stdout.readline() == "received\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert f"{signal.Signals(number).name}: ended; no step was being made" in errors


def test_what_is_ignored_stays_ignored():
    """As SIGHUP under `nohup`."""
    with watching(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=20)
    assert printed.split() == ["received", str(int(signal.SIGTERM)), "left"]


AFTERWARDS = """
import os, signal
from byol_tf.train.signals import NUMBERS, SignalWatch
def state():
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    return [signal.getsignal(number) for number in NUMBERS], signal.set_wakeup_fd(-1), files
before = state()
with SignalWatch("stopping soon"):
    assert [signal.getsignal(number) for number in NUMBERS] != before[0]
assert state() == before, (state(), before)
"""


def test_afterwards_all_is_as_it_was():
    """In a process of its own: where tests run side by side, they may not be on the main thread,
    and signals are watched nowhere else."""
    done = subprocess.run(
        [sys.executable, "-c", AFTERWARDS], cwd=ROOT, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr
