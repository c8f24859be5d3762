"""One process at a time in a run folder: real processes, and what they leave when they are
killed."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byol_tf.errors import RunFolderError
from byol_tf.runs import lock as run_lock
from byol_tf.runs.lock import RunLock

ROOT = Path(__file__).parents[3]
HOLDING = (
    "import sys, time\nfrom byol_tf.runs.lock import RunLock\nwith RunLock(sys.argv[1]): "
    "print('held', flush=True); time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / "run"`."""
    line = [sys.executable, "-c", HOLDING, str(tmp_path / "run")]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_living_process_is_named_and_keeps_the_folder(holder, tmp_path):
    lock = RunLock(tmp_path / "run")
    for claim in (lock.check, lock.__enter__):
        with pytest.raises(
            RunFolderError,
            match=f"in use by process {holder.pid} on {socket.gethostname()}, since 20",
        ):
            claim()
    assert json.loads(lock.path.read_text())["pid"] == holder.pid


def test_a_dead_ones_folder_is_taken_over_at_once(holder, tmp_path):
    holder.kill()
    holder.wait()
    lock = RunLock(tmp_path / "run")
    assert json.loads(lock.path.read_text())["pid"] == holder.pid
    lock.check()
    with lock:
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()
    assert lock.path.read_text() == ""


def test_checking_writes_nothing(tmp_path):
    RunLock(tmp_path / "run").check()
    assert not list(tmp_path.iterdir())


def test_it_can_be_taken_again_and_again(tmp_path):
    for _ in range(2):
        with RunLock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"'])
def test_what_no_process_wrote_whole_holds_nothing(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with RunLock(tmp_path):
        pass


ELSEWHERE = """
import fcntl, socket, sys, threading, time
from byol_tf.runs import lock as run_lock
from byol_tf.errors import LOST
from byol_tf.train.failure_channel import FailureChannel
from byol_tf.train.signals import SignalWatch
run_lock._BEAT = 0.1
socket.gethostname, run_lock._boot = lambda: "elsewhere", lambda: "another"  # two machines see no locks of each other
fcntl.flock = lambda *_: None
with run_lock.RunLock(sys.argv[1]), SignalWatch(None):
    print("held", flush=True)
    if sys.argv[2] == "lost":
        threading.Thread(target=FailureChannel(0, 2).abort, args=(LOST, "has waited")).start()
    time.sleep(60)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Begins a process that holds `tmp_path / "run"` as one on another machine does, seen by what
    it writes alone; dead after 0.6 s."""
    monkeypatch.setattr(run_lock, "_BEAT", 0.1)
    monkeypatch.setattr(run_lock, "_DEAD_AFTER", 0.6)
    begun = []

    def begin(what: str = "lives") -> subprocess.Popen:
        line = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "run"), what]
        begun.append(
            subprocess.Popen(
                line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        )
        assert begun[-1].stdout.readline() == "held\n"
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_one_that_lives_on_another_machine_is_refused_when_it_has_been_waited_for(
    elsewhere, tmp_path
):
    process, said = elsewhere(), []
    lock = RunLock(tmp_path / "run", said.append)
    for number, claim in enumerate((lock.check, lock.__enter__), start=1):
        began = time.monotonic()
        with pytest.raises(
            RunFolderError,
            match=f"in use by process {process.pid} on elsewhere, since 20.*Wait for it, or end it "
            "there",
        ):
            claim()
        assert 0.6 <= time.monotonic() - began < 10
        assert len(said) == number
    assert "waiting, since process" in said[0]
    assert json.loads(lock.path.read_text())["pid"] == process.pid


def test_one_that_is_killed_on_another_machine_is_taken_over_without_a_hand(elsewhere, tmp_path):
    """A scheduler starts the run again elsewhere at once, and only 143 and 75 are codes at which it
    does so again."""
    process, said = elsewhere(), []
    process.kill()
    process.wait()
    lock = RunLock(tmp_path / "run", said.append)
    lock.check()
    with lock:
        assert json.loads(lock.path.read_text())["host"] == socket.gethostname()
    assert len(said) == 1


@pytest.mark.parametrize(("what", "code"), [("lost", 75), ("signalled", 143)])
def test_one_that_ends_at_once_leaves_nothing_to_wait_for(elsewhere, tmp_path, what, code):
    """Since another machine of its run was lost, or by a signal while no step was being made."""
    process, said = elsewhere(what), []
    if what == "signalled":
        process.terminate()
    assert process.wait(20) == code
    with RunLock(tmp_path / "run", said.append):
        assert said == []


def test_one_that_has_been_silent_for_long_is_not_waited_for(tmp_path):
    lock, said = RunLock(tmp_path), []
    lock.path.write_text(
        json.dumps({"pid": 1, "host": "elsewhere", "started": "2026-11-21T10:00:00+00:00"})
    )
    os.utime(lock.path, (0, time.time() - 300))
    with RunLock(tmp_path, said.append):
        assert json.loads(lock.path.read_text())["host"] == socket.gethostname()
    assert said == []


def test_of_this_boot_a_dead_one_is_known_under_any_host_name(tmp_path):
    """As in a container that was killed and started again."""
    lock = RunLock(tmp_path)
    lock.path.write_text(
        json.dumps(
            {
                "pid": 1,
                "host": "before",
                "boot": run_lock._boot(),
                "started": "2026-11-21T10:00:00+00:00",
            }
        )
    )
    with lock:
        pass


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RunFolderError, match="expected a folder that can be written"),
        RunLock(tmp_path / "file" / "run"),
    ):
        pass


def test_a_holder_touches_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "_BEAT", 0.02)
    with RunLock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        deadline = time.time() + 10
        while lock.path.stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.02)
        assert lock.path.stat().st_mtime > 0
