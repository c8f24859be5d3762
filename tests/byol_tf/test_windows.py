"""Tests of what takes the place of POSIX names on Windows, on which nothing was run."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[2]
LIKE_WINDOWS = "from tests.helpers import like_windows; like_windows.apply()\n"
IMPORTS = """
import importlib, pkgutil, byol_tf, pipelines
for package in (byol_tf, pipelines):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != "pipelines.views.keras_cv":
            importlib.import_module(module.name)
"""
HOLD = """
import sys, time
from byol_tf.runs.lock import RunLock
from byol_tf.train.signals import SignalWatch
with RunLock(sys.argv[1]), SignalWatch("stopping") as watch:
    print("held", flush=True)
    while watch.received is None:
        time.sleep(0.01)
print("received", int(watch.received))
"""
TAKE = """
import sys
from pathlib import Path
from byol_tf.errors import RunFolderError
from byol_tf.runs.lock import RunLock
lock = RunLock(sys.argv[1])
try:
    lock.check()
    with lock:
        print(lock.path.read_bytes()[:6])
except RunFolderError as error:
    print(error)
"""


def start(code: str, *words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", LIKE_WINDOWS + code, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=reset_handlers,
    )


def output(code: str, *words: object) -> str:
    printed, errors = (process := start(code, *words)).communicate(timeout=HANG)
    assert process.returncode == 0, errors
    return printed


@pytest.mark.long
def test_all_modules_are_imported():
    output(IMPORTS)


def test_lock_is_refused_while_held_and_taken_over_when_its_process_died(tmp_path):
    with start(HOLD, tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        assert f"in use by process {holder.pid} on " in output(TAKE, tmp_path)
        holder.kill()
    assert output(TAKE, tmp_path) == "b'{\"pid\"'\n"
    assert (tmp_path / ".lock").read_bytes() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_received(tmp_path, number):
    with start(HOLD, tmp_path) as holder:
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(number)
        assert holder.communicate(timeout=HANG)[0] == f"received {int(number)}\n"


@pytest.mark.long
def test_run_is_trained_and_finished(tmp_path):
    words = ["data.source=digits", "training.epochs=1", "optimizer.warmup_epochs=0"]
    words = ["--run-dir", str(tmp_path / "run"), *(w for key in words for w in ("--set", key))]
    printed = output(f"from byol_tf.train.__main__ import main\nprint(main({words!r}))")
    assert printed.splitlines()[-1] == "0"
    assert (tmp_path / "run" / "result.json").is_file()
