"""One process at a time in a run folder: real processes, and what they leave when they are killed."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byol_tf.run_folder import RunFolderError
from byol_tf.run_lock import RunLock

ROOT = Path(__file__).parents[2]
HOLDING = "import sys, time\nfrom byol_tf.run_lock import RunLock\nwith RunLock(sys.argv[1]): print('held', flush=True); time.sleep(60)"


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
        with pytest.raises(RunFolderError, match=f"in use by process {holder.pid} on {socket.gethostname()}, since 20"):
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


def test_on_another_machine_a_process_lives_as_long_as_it_touches_the_file(tmp_path):
    lock = RunLock(tmp_path)
    lock.path.write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "2026-11-21T10:00:00+00:00"}))
    with pytest.raises(RunFolderError, match="in use by process 1 on elsewhere, since 2026-11-21T10:00:00"):
        lock.check()
    os.utime(lock.path, (0, time.time() - 300))
    with lock:
        assert json.loads(lock.path.read_text())["host"] == socket.gethostname()


def test_of_this_boot_a_dead_one_is_known_under_any_host_name(tmp_path):
    """As in a container that was killed and started again."""
    from byol_tf.run_lock import _boot

    lock = RunLock(tmp_path)
    lock.path.write_text(json.dumps({"pid": 1, "host": "before", "boot": _boot(), "started": "2026-11-21T10:00:00+00:00"}))
    with lock:
        pass


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="expected a folder that can be written"), RunLock(tmp_path / "file" / "run"):
        pass


def test_a_holder_touches_the_file(tmp_path, monkeypatch):
    from byol_tf import run_lock

    monkeypatch.setattr(run_lock, "_BEAT", 0.02)
    with RunLock(tmp_path) as lock:
        os.utime(lock.path, (0, 0))
        deadline = time.time() + 10
        while lock.path.stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.02)
        assert lock.path.stat().st_mtime > 0
