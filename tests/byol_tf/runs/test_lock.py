"""Lock of a run folder, with real processes that run, end and are killed."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import idle_timer
from byol_tf.runs import lock as run_lock
from byol_tf.runs.lock import RunLock
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[3]
HOLD_LOCK = (
    "import sys, time\nfrom byol_tf.runs.lock import RunLock\nwith RunLock(sys.argv[1]): "
    "print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of `tmp_path / "run"`."""
    line = [sys.executable, "-c", HOLD_LOCK, str(tmp_path / "run")]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_lock_of_running_process_is_refused(holder, tmp_path):
    lock = RunLock(tmp_path / "run")
    for claim in (lock.check, lock.__enter__):
        with pytest.raises(
            RunFolderError,
            match=f"in use by process {holder.pid} on {socket.gethostname()}, since 20",
        ):
            claim()
    assert json.loads(lock.path.read_text())["pid"] == holder.pid


def test_lock_of_dead_process_is_taken_over(holder, tmp_path):
    holder.kill()
    holder.wait()
    lock = RunLock(tmp_path / "run")
    assert json.loads(lock.path.read_text())["pid"] == holder.pid
    lock.check()
    with lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert lock.path.read_text() == ""


def test_lock_file_that_is_a_link_is_refused_and_its_target_kept(tmp_path):
    (tmp_path / "mine").write_text("mine")
    lock = RunLock(tmp_path / "run")
    lock.path.parent.mkdir()
    lock.path.symlink_to(tmp_path / "mine")
    for claim in (lock.check, lock.__enter__):
        with pytest.raises(RunFolderError, match="symbolic links"):
            claim()
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on Windows")
def test_lock_file_that_is_a_pipe_is_refused(tmp_path):
    """It would be waited for without end."""
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(RunFolderError, match="not a regular file"):
        RunLock(tmp_path).check()
    with pytest.raises(RunFolderError, match="not a regular file"), RunLock(tmp_path):
        pass


def test_check_writes_nothing(tmp_path):
    RunLock(tmp_path / "run").check()
    assert not list(tmp_path.iterdir())


def test_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with RunLock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"', "[" * 100_000])
def test_incomplete_lock_file_locks_nothing(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with RunLock(tmp_path):
        pass


@pytest.fixture
def short_wait(monkeypatch):
    """A silent owner counts as dead after 0.6 s of watching."""
    monkeypatch.setattr(run_lock, "_HEARTBEAT", 0.1)
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 0.6)


@pytest.fixture
def longer_wait(short_wait, monkeypatch):
    """It does after 3 s, as a busy machine may let a live owner wait for more than 0.6 s."""
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 3.0)


HOLD_LOCK_ELSEWHERE = """
import fcntl, os, socket, sys, threading, time
from byol_tf.runs import lock as run_lock
from byol_tf.errors import LOST
from byol_tf.train.failure_channel import FailureChannel
from byol_tf.train.signals import SignalWatch
run_lock._HEARTBEAT = 0.1
socket.gethostname, run_lock._boot_id = lambda: "elsewhere", lambda: "another"  # two machines see no locks of each other
fcntl.flock = lambda *_: None
utime, skew = os.utime, float(sys.argv[3])
os.utime = lambda path: utime(path, (time.time() + skew,) * 2)
with run_lock.RunLock(sys.argv[1]), SignalWatch(None):
    print("held", flush=True)
    if sys.argv[2] == "lost":
        threading.Thread(target=FailureChannel(0, 2).abort, args=(LOST, "has waited")).start()
    time.sleep(60)
"""


@pytest.fixture
def elsewhere(tmp_path, short_wait):
    """Starts a process that has the lock of `tmp_path / "run"` as one on another machine does.

    Only what it writes shows that it is alive.
    """
    processes = []

    def start(behaviour: str = "running", skew: float = 0.0) -> subprocess.Popen:
        line = [sys.executable, "-c", HOLD_LOCK_ELSEWHERE, str(tmp_path / "run"), behaviour]
        line.append(str(skew))
        processes.append(
            subprocess.Popen(
                line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_lock_of_live_remote_process_is_refused_after_timeout(
    elsewhere, longer_wait, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    process = elsewhere()
    lock = RunLock(tmp_path / "run")
    for number, claim in enumerate((lock.check, lock.__enter__), start=1):
        began = time.monotonic()
        with pytest.raises(
            RunFolderError,
            match=f"in use by process {process.pid} on elsewhere, since 20.*Wait for it, or end it "
            "there",
        ):
            claim()
        assert 3.0 <= time.monotonic() - began < HANG
        assert len(caplog.messages) == number
    assert "waiting, since process" in caplog.messages[0]
    assert json.loads(lock.path.read_text())["pid"] == process.pid


def test_lock_of_killed_remote_process_is_taken_over(elsewhere, tmp_path, caplog):
    """A scheduler restarts the run elsewhere at once, and again only after exit code 143 or 75."""
    caplog.set_level(logging.INFO)
    process = elsewhere()
    process.kill()
    process.wait()
    lock = RunLock(tmp_path / "run")
    lock.check()
    with lock:
        assert json.loads(lock.path.read_text())["host"] == socket.gethostname()
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("behaviour", "code"), [("lost", 75), ("signalled", 143)])
def test_immediate_exit_releases_the_lock(elsewhere, tmp_path, behaviour, code, caplog):
    """After another worker was lost, or by a signal while no step was running."""
    caplog.set_level(logging.INFO)
    process = elsewhere(behaviour)
    if behaviour == "signalled":
        process.terminate()
    assert process.wait(HANG) == code
    with RunLock(tmp_path / "run"):
        assert caplog.messages == []


def owner_of(lock: RunLock) -> dict:
    return json.loads(lock.path.read_text())


def leave_lock(lock: RunLock, mtime: float, **owner) -> None:
    """Leaves the lock file of a process that is dead, with a time of its last touch."""
    lock.path.write_text(json.dumps({"pid": 1, "started": "2026-11-21T10:00:00+00:00"} | owner))
    os.utime(lock.path, (mtime, mtime))


@pytest.mark.parametrize("ahead", [-300.0, 0.0, 3600.0])
@pytest.mark.parametrize(
    "owner",
    [
        {"host": "elsewhere"},
        {"host": "elsewhere", "boot": "another"},
        {"host": socket.gethostname(), "boot": "another"},  # machines may share a name
    ],
)
def test_dead_remote_owner_is_watched_whatever_its_clock(
    short_wait, tmp_path, caplog, ahead, owner
):
    caplog.set_level(logging.INFO)
    lock, began = RunLock(tmp_path), time.monotonic()
    leave_lock(lock, time.time() + ahead, **owner)
    with lock:
        assert owner_of(lock)["pid"] == os.getpid()
    assert time.monotonic() - began >= 0.6
    assert "waiting, since process 1 on" in caplog.text


def test_second_wait_continues_the_first(short_wait, tmp_path, caplog):
    """The command looks before it imports TensorFlow, and again before it writes."""
    caplog.set_level(logging.INFO)
    leave_lock(RunLock(tmp_path), time.time(), host="elsewhere")
    RunLock(tmp_path).check()
    assert len(caplog.messages) == 1
    with RunLock(tmp_path):
        assert len(caplog.messages) == 1


@pytest.mark.parametrize("skew", [-150.0, 150.0])
def test_live_owner_is_refused_whatever_its_clock(elsewhere, longer_wait, tmp_path, skew):
    """Each touch leaves a time of the other machine's clock."""
    elsewhere(skew=skew)
    with pytest.raises(RunFolderError, match="in use by process"):
        RunLock(tmp_path / "run").check()


def test_time_in_which_the_watcher_was_stopped_does_not_count(short_wait, tmp_path, monkeypatch):
    """The owner may have been suspended with it, as machines of one cluster are."""
    lock = RunLock(tmp_path)
    leave_lock(lock, time.time(), host="elsewhere")
    now = [0.0]
    monkeypatch.setattr(idle_timer, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(run_lock, "_STALE_AFTER", 120.0)
    for now[0] in (0.0, 1.0, 1000.0):
        with lock.path.open("r+b") as file, pytest.raises(run_lock.PossiblyStaleLock) as raised:
            lock._claim(file.fileno())
    assert raised.value.silent_seconds == 3.0


SUSPENDED = """
import fcntl, socket, sys, time
from pathlib import Path
import numpy as np
from byol_tf.errors import RunFolderError
from byol_tf.runs import lock as run_lock
from byol_tf.runs.checkpoint_writer import CheckpointWriter
run_lock._HEARTBEAT = 0.1
socket.gethostname, run_lock._boot_id = lambda: "elsewhere", lambda: "another"
fcntl.flock = lambda *_: None
root = Path(sys.argv[1])
try:
    with run_lock.RunLock(root) as lock:
        writer = CheckpointWriter(root / "checkpoints", 2, check_owner=lock.check_owner)
        print("held", flush=True)
        while True:
            writer.write(1, 0, {"kernel": np.ones(3)}, {"rows": []})
            writer.wait()
            time.sleep(0.01)
except RunFolderError as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("released", [False, True])
def test_suspended_owner_writes_nothing_after_it_was_replaced(short_wait, tmp_path, released):
    """On a disk without working locks, where another machine takes the folder meanwhile."""
    run = tmp_path / "run"
    line = [sys.executable, "-c", SUSPENDED, str(run)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            wait_until((run / "checkpoints" / "epoch-0001").exists)
            process.send_signal(signal.SIGSTOP)
            lock = RunLock(run)
            with lock:
                content = lock.path.read_bytes()
                shutil.rmtree(run / "checkpoints")
                if not released:
                    process.send_signal(signal.SIGCONT)
                    message, _ = process.communicate(timeout=HANG)
                    assert lock.path.read_bytes() == content
            if released:
                process.send_signal(signal.SIGCONT)
                message, _ = process.communicate(timeout=HANG)
        finally:
            process.kill()
    owner = "a process that has ended" if released else f"process {os.getpid()} on"
    assert f"{run}: expected to have this run alone" in message
    assert f"it was taken over by {owner}" in message
    assert not (run / "checkpoints").exists()
    assert lock.path.read_text() == ""


def test_owner_that_nobody_replaced_keeps_the_lock(tmp_path):
    with RunLock(tmp_path) as lock:
        lock.check_owner()
        lock.path.unlink()  # as with a disk that doesn't answer: nobody else has written it
        lock.check_owner()


def test_dead_process_of_same_boot_is_recognized_under_another_host_name(tmp_path):
    """As in a container that was killed and restarted."""
    lock = RunLock(tmp_path)
    lock.path.write_text(
        json.dumps(
            {
                "pid": 1,
                "host": "before",
                "boot": run_lock._boot_id(),
                "started": "2026-11-21T10:00:00+00:00",
            }
        )
    )
    with lock:
        pass


def test_unwritable_folder_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFolderError, match="expected a folder that can be written"),
        RunLock(tmp_path / "file" / "run"),
    ):
        pass


def test_lock_file_is_touched_regularly(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_HEARTBEAT", 0.02)
    with RunLock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        wait_until(lambda: lock.path.stat().st_mtime > 0)
