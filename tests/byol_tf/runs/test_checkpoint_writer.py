"""Writing in the background: training doesn't wait, and a full disk ends nothing."""

import errno
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from byol_tf.errors import SavesFailed
from byol_tf.runs import checkpoint_writer, checkpoints
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, read_newest


class Run:
    """A writer, and what it said."""

    def __init__(self, folder: Path, keep: int = 2):
        self.said = []
        self.writer = CheckpointWriter(folder, keep, self.said.append)

    def write(self, epoch: int, step: int = 0, accuracies: tuple[float, ...] = ()) -> None:
        rows = [
            {"epoch": epoch, "probe_accuracy": accuracy}
            for epoch, accuracy in enumerate(accuracies)
        ]
        self.writer.write(
            epoch, step, {"kernel": np.full((2, 3), epoch, np.float32)}, {"rows": rows}
        )


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_training_thread_goes_on_while_one_is_written_and_the_next_waits(
    run, tmp_path, monkeypatch
):
    may_end, order = threading.Event(), []
    real = checkpoint_writer.write_checkpoint

    def slow(folder, epoch, *rest):
        order.append(f"{epoch} begins")
        assert may_end.wait(10)
        path = real(folder, epoch, *rest)
        order.append(f"{epoch} ends")
        return path

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow)
    run.write(1)
    assert run.writer.busy
    assert not list_checkpoints(tmp_path)
    may_end.set()
    run.write(2)
    run.writer.wait()
    assert not run.writer.busy
    assert order == ["1 begins", "1 ends", "2 begins", "2 ends"]
    assert names(tmp_path) == ["epoch-0001", "epoch-0002"]


@pytest.mark.parametrize("where", ["zipfile.ZipFile.open", "os.fsync", "pathlib.Path.rename"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failed_write_is_said_and_leaves_the_earlier_ones(
    run, tmp_path, monkeypatch, where, number
):
    run.write(1)
    run.writer.wait()

    def full(*_, **__):
        raise OSError(number, "the disk says no")

    with monkeypatch.context() as broken:
        broken.setattr(where, full)
        for step in (1, 2):
            run.write(1, step)
            run.writer.wait()
            assert run.writer.failed
            assert names(tmp_path) == ["epoch-0001"]  # and nothing half written takes room
    run.writer.check()
    assert len(run.said) == 2
    assert all(
        line.startswith(f"warning: checkpoint not written: [Errno {number}] the disk says no")
        for line in run.said
    )
    assert read_newest(tmp_path)[1] == []
    run.write(1, 3)
    run.writer.wait()
    assert not run.writer.failed
    assert run.said[2:] == ["checkpoints are written again"]
    assert (read_newest(tmp_path)[0].epoch, read_newest(tmp_path)[0].step) == (1, 3)


def broken(*_):
    raise ZeroDivisionError("a mistake in the writer")


def test_the_third_failure_in_a_row_ends_the_run_whatever_it_is(run, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", broken)
    for _ in range(2):
        run.write(1)
        run.writer.wait()
        run.writer.check()
    run.write(1)
    run.writer.wait()
    with pytest.raises(
        SavesFailed, match="3 saves in a row failed: ZeroDivisionError: a mistake in the writer"
    ):
        run.writer.check()
    assert SavesFailed.exit_code == 74
    assert len(run.said) == 2


def test_no_thread_is_a_failed_save(run, monkeypatch):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    run.write(1)
    assert run.writer.failed
    assert not run.writer.busy


@pytest.mark.parametrize(("failures", "written"), [(0, True), (2, True), (3, False)])
def test_the_last_save_is_tried_again(run, tmp_path, monkeypatch, failures, written):
    real, left = checkpoint_writer.write_checkpoint, [None] * failures

    def failing(*parts):
        return broken() if left and not left.pop() else real(*parts)

    monkeypatch.setattr(checkpoint_writer, "_PAUSE", 0.01)
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", failing)
    run.write(1)
    run.writer.finish()
    assert run.writer.failed is not written
    assert [path.name for path in list_checkpoints(tmp_path)] == ["epoch-0001"] * written


@pytest.fixture
def hanging(monkeypatch):
    """A disk that answers no fsync before the event is set; a save counts as one that hangs after
    0.5 s."""
    answers = threading.Event()
    monkeypatch.setattr(checkpoint_writer, "SLOW", 0.5)
    monkeypatch.setattr(checkpoint_writer, "_TICK", 0.02)
    monkeypatch.setattr("os.fsync", lambda descriptor: answers.wait(60))
    yield answers
    answers.set()


def test_a_save_that_hangs_is_said_once_while_the_training_thread_goes_on(run, tmp_path, hanging):
    run.write(1)
    run.writer.check()
    assert (run.said, run.writer.hangs) == ([], False)
    deadline = time.monotonic() + 20
    while not run.said:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        run.writer.check()
    run.writer.check()
    assert [line.partition(" has taken ")[0] for line in run.said] == [
        f"warning: a save into {tmp_path}"
    ]
    assert (run.writer.hangs, run.writer.newest) == (True, None)
    hanging.set()
    run.writer.wait()
    assert (run.writer.hangs, run.writer.newest) == (False, tmp_path / "epoch-0001")


def test_one_who_waits_for_a_save_that_hangs_says_so_and_can_give_up(run, hanging):
    awaited = []

    def hung():
        awaited.append(run.writer.awaited)
        hanging.set()

    run.writer.hung = hung
    run.write(1)
    assert not run.writer.awaited
    run.write(2)
    assert awaited == [True]
    assert len(run.said) == 1
    run.writer.finish()
    assert not run.writer.awaited


def test_a_disk_that_is_always_slow_does_not_hang(run, hanging):
    run.writer.hung = hanging.set
    run.write(1)
    run.writer.wait()
    run.writer.hung = pytest.fail
    real = checkpoint_writer.write_checkpoint
    with pytest.MonkeyPatch.context() as slow:
        slow.setattr(
            checkpoint_writer, "write_checkpoint", lambda *parts: time.sleep(0.7) or real(*parts)
        )
        run.write(2)
        run.writer.wait()
    assert len(run.said) == 1


def test_the_newest_and_the_best_stay(run, tmp_path):
    accuracies = (0.9, 0.3, 0.7, 0.2, 0.7, 0.1)
    for epoch in range(1, 6):
        run.write(epoch, accuracies=accuracies[: epoch + 1])
    run.writer.wait()
    assert names(tmp_path) == ["epoch-0002", "epoch-0004", "epoch-0005"]


def test_those_of_an_earlier_process_are_read_once_before_they_count(tmp_path, monkeypatch):
    first = Run(tmp_path, keep=9)
    for epoch in (1, 2, 3):
        first.write(epoch)
    first.writer.wait()
    (tmp_path / "epoch-0003" / "state.json").write_text("{")
    second, read = Run(tmp_path), []
    real = checkpoints.verify
    monkeypatch.setattr(
        checkpoint_writer, "verify", lambda path: read.append(path.name) or real(path)
    )
    for step in (1, 2):
        second.write(3, step)
        second.writer.wait()
        assert len([path for path in list_checkpoints(tmp_path) if path.name != "epoch-0003"]) >= 2
    assert read == ["epoch-0003", "epoch-0002"]
    assert names(tmp_path) == ["epoch-0003-step-000001", "epoch-0003-step-000002"]
