"""Signals sent to real processes."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from byol_tf.command_line import STOP_SIGNALS
from byol_tf.errors import Interrupted
from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG

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


@contextlib.contextmanager
def watching(
    where: str = "in Python", stays: float = 0.0, before=reset_handlers, text: str = WATCHING
) -> Iterator[subprocess.Popen]:
    """A process inside a `SignalWatch`, killed at the end."""
    line = [sys.executable, "-c", text, where, str(stays)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=ROOT, preexec_fn=before, **pipes) as process:
        try:
            assert process.stdout.readline() == "watching\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_first_signal_is_recorded_and_the_process_continues(number):
    with watching() as process:
        process.send_signal(number)
        printed, errors = process.communicate(timeout=HANG)
    assert process.returncode == 0
    assert printed.split() == ["received", str(int(number)), "left"]
    assert f"{signal.Signals(number).name}: stopping soon; a second one exits at once" in errors
    assert Interrupted(number, 1, 2, True).exit_code == 128 + number


def test_second_signal_of_the_same_number_exits_at_once():
    with watching(stays=60.0) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == f"received {int(signal.SIGTERM)}\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=HANG) == 128 + signal.SIGTERM


def test_second_signal_exits_within_c_code():
    with watching("inside C") as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=HANG) == 128 + signal.SIGINT


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


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_first_signal_exits_where_no_step_runs(number):
    """Even after an inner watch that has recorded one of the same number."""
    with watching(text=ENDING) as process:
        process.send_signal(number)
        assert process.stdout.readline() == "received\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=HANG)
    assert process.returncode == 128 + number
    assert f"{signal.Signals(number).name}: exiting at once; no training step is running" in errors


def test_ignored_signal_stays_ignored():
    """Such as SIGHUP under `nohup`."""
    with watching(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate(timeout=HANG)
    assert printed.split() == ["received", str(int(signal.SIGTERM)), "left"]


AFTERWARDS = """
import os, signal
from byol_tf.command_line import STOP_SIGNALS
from byol_tf.train.signals import SignalWatch
def state():
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    return [signal.getsignal(number) for number in STOP_SIGNALS], signal.set_wakeup_fd(-1), files
before = state()
with SignalWatch("stopping soon"):
    assert [signal.getsignal(number) for number in STOP_SIGNALS] != before[0]
assert state() == before, (state(), before)
"""


def test_handlers_are_restored():
    """In a process of its own, as tests may not run on the main thread."""
    done = subprocess.run(
        [sys.executable, "-c", AFTERWARDS], cwd=ROOT, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stderr
