"""Background saves: training doesn't wait, and a full disk ends nothing."""

import errno
import logging
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from byol_tf.errors import SavesFailed
from byol_tf.runs import checkpoint_writer, checkpoints
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, read_newest
from tests.helpers.waiting import HANG, wait_until


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
    """A disk that answers no fsync before the event is set; a save hangs after 0.5 s."""
    answers = threading.Event()
    monkeypatch.setattr(checkpoint_writer, "HANG_SECONDS", 0.5)
    monkeypatch.setattr(checkpoint_writer, "_POLL_INTERVAL", 0.02)
    monkeypatch.setattr("os.fsync", lambda descriptor: answers.wait(HANG))
    yield answers
    answers.set()


def test_hanging_save_is_logged_once_without_blocking_training(
    writer, tmp_path, disk_answers, caplog
):
    write(writer, 1)
    writer.check()
    assert (caplog.messages, writer.hangs) == ([], False)

    def is_logged() -> bool:
        writer.check()
        return bool(caplog.messages)

    wait_until(is_logged)
    writer.check()
    assert [line.partition(" has taken ")[0] for line in caplog.messages] == [
        f"a save into {tmp_path}"
    ]
    assert (writer.hangs, writer.newest) == (True, None)
    disk_answers.set()
    writer.wait()
    assert (writer.hangs, writer.newest) == (False, tmp_path / "epoch-0001")


def test_waiting_for_a_hanging_save_calls_on_hang(writer, disk_answers, caplog):
    awaited = []

    def on_hang():
        awaited.append(writer.awaited)
        disk_answers.set()

    writer.on_hang = on_hang
    write(writer, 1)
    assert not writer.awaited
    write(writer, 2)
    assert set(awaited) == {True}  # called again and again until the save ends
    assert len(caplog.messages) == 1
    writer.finish()
    assert not writer.awaited


def test_constantly_slow_disk_does_not_hang(writer, disk_answers, caplog):
    writer.on_hang = disk_answers.set
    write(writer, 1)
    writer.wait()
    writer.on_hang = pytest.fail
    real = checkpoint_writer.write_checkpoint
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(
            checkpoint_writer,
            "write_checkpoint",
            lambda *arguments: time.sleep(0.7) or real(*arguments),
        )
        write(writer, 2)
        writer.wait()
    assert len(caplog.messages) == 1


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
        checkpoint_writer, "verify", lambda path: verified.append(path.name) or real(path)
    )
    for step in (1, 2):
        write(second, 3, step)
        second.wait()
        assert len([path for path in list_checkpoints(tmp_path) if path.name != "epoch-0003"]) >= 2
    assert verified == ["epoch-0003", "epoch-0002"]
    assert names(tmp_path) == ["epoch-0003-step-000001", "epoch-0003-step-000002"]
