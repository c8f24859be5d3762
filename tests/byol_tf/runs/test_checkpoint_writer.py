"""Background saves: training doesn't wait, and a full disk ends nothing."""

import errno
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from byol_tf.errors import RunFolderError, SavesFailed
from byol_tf.runs import checkpoint_format, checkpoint_writer, checkpoints, idle_timer
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, read_newest
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[3]


@pytest.fixture
def writer(tmp_path):
    return CheckpointWriter(tmp_path, keep=2)


@pytest.fixture(autouse=True)
def log_everything(caplog):
    caplog.set_level(logging.INFO)


def write(
    writer: CheckpointWriter, epoch: int, step: int = 0, accuracies: tuple[float, ...] = ()
) -> None:
    rows = [
        {"epoch": epoch, "probe_accuracy": accuracy} for epoch, accuracy in enumerate(accuracies)
    ]
    writer.write(epoch, step, {"kernel": np.full((2, 3), epoch, np.float32)}, {"rows": rows})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_returns_at_once_and_waits_for_the_previous(writer, tmp_path, monkeypatch):
    may_end, order = threading.Event(), []
    real = checkpoint_writer.write_checkpoint

    def slow(folder, epoch, *arguments):
        order.append(f"{epoch} starts")
        assert may_end.wait(HANG)
        path = real(folder, epoch, *arguments)
        order.append(f"{epoch} ends")
        return path

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow)
    write(writer, 1)
    assert writer.busy
    assert not list_checkpoints(tmp_path)
    may_end.set()
    write(writer, 2)
    writer.wait()
    assert not writer.busy
    assert order == ["1 starts", "1 ends", "2 starts", "2 ends"]
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]


@pytest.mark.parametrize("operation", ["zipfile.ZipFile.open", "os.fsync", "pathlib.Path.rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_failed_save_is_logged_and_keeps_earlier_ones(
    writer, tmp_path, monkeypatch, caplog, operation, number
):
    write(writer, 1)
    writer.wait()

    def full(*_, **__):
        raise OSError(number, "the disk says no")

    with monkeypatch.context() as patched:
        patched.setattr(operation, full)
        for step in (1, 2):
            write(writer, 1, step)
            writer.wait()
            assert writer.failed
            assert names(tmp_path) == ["epoch-0001"]  # and no partial one takes space
    writer.check()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all(
        line.startswith(f"checkpoint not written: [Errno {number}] the disk says no")
        for line in caplog.messages
    )
    assert read_newest(tmp_path)[1] == []
    write(writer, 1, 3)
    writer.wait()
    assert not writer.failed
    assert caplog.messages[2:] == ["checkpoints are written again"]
    assert (read_newest(tmp_path)[0].epoch, read_newest(tmp_path)[0].step) == (1, 3)


def broken(*_):
    raise ZeroDivisionError("a mistake in the writer")


def test_third_consecutive_failure_of_any_type_ends_the_run(writer, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", broken)
    for _ in range(2):
        write(writer, 1)
        writer.wait()
        writer.check()
    write(writer, 1)
    writer.wait()
    with pytest.raises(
        SavesFailed, match="3 saves in a row failed: ZeroDivisionError: a mistake in the writer"
    ):
        writer.check()
    assert SavesFailed.exit_code == 74
    assert len(caplog.messages) == 2


def test_missing_thread_is_a_failed_save(writer, monkeypatch):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    write(writer, 1)
    assert writer.failed
    assert not writer.busy


@pytest.mark.parametrize(("failures", "written"), [(0, True), (2, True), (3, False)])
def test_finish_retries_the_last_save(writer, tmp_path, monkeypatch, failures, written):
    real, remaining = checkpoint_writer.write_checkpoint, [None] * failures

    def failing(*arguments):
        return broken() if remaining and not remaining.pop() else real(*arguments)

    monkeypatch.setattr(checkpoint_writer, "_RETRY_DELAY", 0.01)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", failing)
    write(writer, 1)
    writer.finish()
    assert writer.failed is not written
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch-0001"] * written


@pytest.fixture
def disk_answers(monkeypatch):
    """A disk that answers no fsync before the event is set."""
    answers = threading.Event()
    monkeypatch.setattr(checkpoint_writer, "_POLL_INTERVAL", 0.02)
    monkeypatch.setattr("os.fsync", lambda descriptor: answers.wait(HANG))
    yield answers
    answers.set()


def test_hanging_save_is_logged_once_without_blocking_training(tmp_path, disk_answers, caplog):
    writer = CheckpointWriter(tmp_path, 2, patience=0.5)
    write(writer, 1)
    writer.check()
    assert (caplog.messages, writer.hangs) == ([], False)

    def is_logged() -> bool:
        writer.check()
        return bool(caplog.messages)

    wait_until(is_logged)
    writer.check()
    assert [line.partition(" for ")[0] for line in caplog.messages] == [
        f"a save into {tmp_path} has made no progress"
    ]
    assert (writer.hangs, writer.newest) == (True, None)
    disk_answers.set()
    writer.wait()
    writer.check()
    assert caplog.messages[1:] == [f"the disk of {tmp_path} answers again"]
    assert (writer.hangs, writer.newest) == (False, tmp_path / "epoch-0001")


def test_waiting_for_a_hanging_save_calls_on_hang(tmp_path, disk_answers, caplog):
    writer, awaited = CheckpointWriter(tmp_path, 2, patience=0.5), []

    def on_hang():
        awaited.append(writer.awaited)
        disk_answers.set()

    writer.on_hang = on_hang
    write(writer, 1)
    assert not writer.awaited
    write(writer, 2)
    assert set(awaited) == {True}  # called again and again until the save ends
    assert "has made no progress for " in caplog.messages[0]
    writer.finish()
    assert not writer.awaited


@pytest.mark.parametrize(("seconds_per_write", "hangs"), [(3, False), (9, True)])
def test_slow_first_save_hangs_only_without_progress(
    tmp_path, monkeypatch, seconds_per_write, hangs
):
    """The writes of a slow disk advance the clock that the waiting thread looks at."""
    seconds, write_ends, seen, real = [0], [0], [], os.write

    def monotonic() -> float:
        seconds[0] = min(seconds[0] + 1, write_ends[0])
        return float(seconds[0])

    def slow_write(descriptor, data):
        write_ends[0] += seconds_per_write
        wait_until(lambda: seconds[0] == write_ends[0], pause=0.001)
        return real(descriptor, data)

    monkeypatch.setattr(idle_timer, "time", SimpleNamespace(monotonic=monotonic))
    monkeypatch.setattr(checkpoint_writer, "_POLL_INTERVAL", 0.001)
    monkeypatch.setattr(checkpoint_format, "_CHUNK", 8)
    monkeypatch.setattr("os.write", slow_write)
    writer = CheckpointWriter(tmp_path, 2, patience=6.0)
    writer.on_hang = lambda: seen.append(writer.newest)
    write(writer, 1)
    writer.wait()
    assert seconds[0] > 60
    assert bool(seen) is hangs
    assert writer.newest == tmp_path / "epoch-0001"


SAVING = """
import os, sys, time
from pathlib import Path
import numpy as np
from byol_tf.runs.checkpoint_writer import CheckpointWriter
folder, real = Path(sys.argv[1]), os.fsync
def fsync(descriptor):
    if not (folder / "answers").exists():
        time.sleep(0.6)  # in which the waiting thread looks
        print("saving", flush=True)
        while not (folder / "answers").exists():
            time.sleep(0.01)
        time.sleep(0.6)
    real(descriptor)
os.fsync = fsync
writer = CheckpointWriter(folder, 2, patience=6.0)
writer.on_hang = lambda: os._exit(3)
writer.write(1, 0, {"kernel": np.ones(3)}, {"rows": []})
writer.finish()
"""


def test_time_in_which_the_process_was_stopped_is_no_hang(tmp_path):
    line = [sys.executable, "-c", SAVING, str(tmp_path)]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "saving\n"
            process.send_signal(signal.SIGSTOP)
            time.sleep(7.0)
            (tmp_path / "answers").touch()
            process.send_signal(signal.SIGCONT)
            assert process.wait(HANG) == 0
        finally:
            process.kill()
    assert read_newest(tmp_path)[0].epoch == 1


def test_large_files_are_synced_as_they_are_written(tmp_path, monkeypatch):
    """Else a slow disk would show no progress for minutes."""
    monkeypatch.setattr(checkpoint_format, "_CHUNK", 1000)
    events, real_write, real_fsync = [], os.write, os.fsync
    monkeypatch.setattr(
        "os.write", lambda d, data: (events.append(len(data)), real_write(d, data))[1]
    )
    monkeypatch.setattr("os.fsync", lambda d: (events.append("sync"), real_fsync(d))[1])
    checkpoints.write_checkpoint(
        tmp_path, 1, 0, {"w": np.ones(999)}, {}, lambda: events.append("progress")
    )
    written = [event for event in events if isinstance(event, int)]
    assert max(written) == 1000
    assert events.count("progress") > 2 * 8  # written, and read back
    longest = max(
        sum(event for event in events[start:stop] if isinstance(event, int))
        for start, stop in itertools.pairwise(
            [index for index, event in enumerate(events) if event == "sync"]
        )
    )
    assert longest <= 2000
    assert (read_newest(tmp_path)[0].arrays["w"] == 1.0).all()


def test_run_that_was_taken_over_is_saved_no_more(tmp_path):
    taken = []

    def check_owner():
        if taken:
            raise RunFolderError("taken over")

    writer = CheckpointWriter(tmp_path, 2, check_owner=check_owner)
    write(writer, 1)
    writer.finish()
    before = names(tmp_path)
    taken.append(True)
    write(writer, 2)
    for look in (writer.finish, writer.check, lambda: write(writer, 3)):
        with pytest.raises(RunFolderError, match="taken over"):
            look()
    assert writer.failed
    assert names(tmp_path) == before


def test_run_that_is_taken_over_during_a_save_gets_no_checkpoint(tmp_path):
    calls = []

    def check_owner():
        calls.append(names(tmp_path))
        if len(calls) == 2:
            raise RunFolderError("taken over")

    writer = CheckpointWriter(tmp_path, 2, check_owner=check_owner)
    write(writer, 1)
    with pytest.raises(RunFolderError, match="taken over"):
        writer.finish()
    assert calls == [[], [".epoch-0001.part"]]
    assert names(tmp_path) == []


def test_newest_and_best_checkpoints_are_kept(writer, tmp_path):
    accuracies = (0.9, 0.3, 0.7, 0.2, 0.7, 0.1)
    for epoch in range(1, 6):
        write(writer, epoch, accuracies=accuracies[: epoch + 1])
    writer.wait()
    assert names(tmp_path) == ["epoch-0002", "epoch-0004", "epoch-0005"]


def test_earlier_checkpoints_are_verified_once_before_they_count(tmp_path, monkeypatch):
    first = CheckpointWriter(tmp_path, keep=9)
    for epoch in (1, 2, 3):
        write(first, epoch)
    first.wait()
    (tmp_path / "epoch-0003" / "state.json").write_text("{")
    second, verified = CheckpointWriter(tmp_path, keep=2), []
    real = checkpoints.verify
    monkeypatch.setattr(
        checkpoint_writer, "verify", lambda path, *_: verified.append(path.name) or real(path)
    )
    for step in (1, 2):
        write(second, 3, step)
        second.wait()
        assert len([path for path in list_checkpoints(tmp_path) if path.name != "epoch-0003"]) >= 2
    assert verified == ["epoch-0003", "epoch-0002"]
    assert names(tmp_path) == ["epoch-0003-step-000001", "epoch-0003-step-000002"]
