"""Full or failing disks: a failed save harms no checkpoint, and three in a row end the run."""

import contextlib
import csv
import errno
import hashlib
import os
import resource
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.errors import SavesFailed
from byol_tf.runs import checkpoint_writer
from byol_tf.runs.checkpoint_writer import CheckpointWriter
from byol_tf.runs.checkpoints import list_checkpoints, recover
from byol_tf.runs.plots import curves_figure
from byol_tf.train.callbacks.history import COLUMNS, History
from byol_tf.train.tensorboard import EventLog
from tests.helpers.waiting import wait_until
from tests.reliability import runs
from tests.reliability.operations import Operation, Operations, fail_at
from tests.reliability.saves import (
    KEEP,
    arrays_at,
    copies,
    folder_with_left_overs,
    logged_messages,
    memory_folder,
    run_in_fork,
    save,
    state_at,
    valid_positions,
)

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EMFILE)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Mounts a disk in memory; needs root."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path, free: int = 0) -> None:
    """Writes a file until the disk has only `free` bytes left, a multiple of its pages of 4 KiB."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(path, path.stat().st_size - free)


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the SHA-256 of every file of every checkpoint."""
    files = [path for checkpoint in list_checkpoints(folder) for path in checkpoint.iterdir()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest() for path in files
    }


def cleared(folder: Path) -> Path:
    """Makes a folder of checkpoints as a resumed run has it."""
    folder_with_left_overs(folder)
    recover(folder)
    return folder


def operations_of_a_save(folder: Path) -> list[Operation]:
    done = []
    with Operations(folder, lambda _, operation: done.append(operation), reading=True):
        save(folder, [(5, 0)])
    return done


@pytest.fixture
def quick():
    with memory_folder() as folder:
        yield folder


def test_error_at_every_operation_of_a_save(quick, report):
    base = cleared(quick / "base")
    before, fresh_copies, times = contents(base), copies(base, quick / "copy"), 0
    points = len(operations_of_a_save(next(fresh_copies)))
    assert points >= 40
    for error in ERRORS:
        for number in range(points):
            copy = next(fresh_copies)
            with Operations(copy, fail_at(number, error), reading=True):
                writer = save(copy, [(5, 0)])
            if writer.failed:  # else an old one may have gone, as it should
                assert contents(copy).items() >= before.items(), number
            assert len(valid_positions(copy)) >= 2
            writer.check()  # one failure ends nothing
            writer.write(5, 3, arrays_at(5, 3), state_at(5))
            writer.wait()
            assert not writer.failed
            assert valid_positions(copy)[-1] == (5, 3)
            assert not list(copy.glob(".*"))
            times += 1
    names = ", ".join(errno.errorcode[error] for error in ERRORS)
    report(
        5,
        f"{names} at each of {points} operations of a save: run goes on, earlier checkpoints as "
        "they were, next save whole",
        times,
    )


def test_persistent_disk_error_ends_the_run_after_three_saves(quick, report):
    base = cleared(quick / "base")
    before, fresh_copies, times = contents(base), copies(base, quick / "copy"), 0
    written = [
        number
        for number, operation in enumerate(operations_of_a_save(next(fresh_copies)))
        if operation.name in ("mkdir", "write", "fsync")
    ]
    for error in ERRORS:
        for number in written:
            copy = next(fresh_copies)
            writer = CheckpointWriter(copy, KEEP)
            failing = fail_at(number, error, last=10**9)
            with logged_messages() as messages, Operations(copy, failing, reading=True):
                for step in (1, 2):
                    writer.write(5, step, arrays_at(5, step), state_at(5))
                    writer.wait()
                    writer.check()
                writer.write(5, 3, arrays_at(5, 3), state_at(5))
                writer.wait()
            with pytest.raises(
                SavesFailed, match=r"3 saves in a row failed: \[Errno \d+\]"
            ) as raised:
                writer.check()
            assert len(str(raised.value).splitlines()) == 1
            assert len(messages) == 2
            assert contents(copy).items() >= before.items()
            times += 1
    report(
        5,
        "the same errors from an operation on for good: two warnings, one line and the end, all "
        "checkpoints as they were",
        times,
    )


def remove_first(monkeypatch) -> None:
    """Makes the writer remove old checkpoints before it saves, as a simpler program does."""
    real = checkpoint_writer.write_checkpoint

    def old_first(folder, *arguments):
        checkpoint_writer.remove_old(folder, KEEP - 1, lambda path: True, {})
        return real(folder, *arguments)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", old_first)


def test_removing_old_checkpoints_first_loses_one(quick, monkeypatch):
    """Shows that the tests here can fail."""
    base = cleared(quick / "base")
    before = contents(base)
    remove_first(monkeypatch)
    with Operations(
        base,
        lambda count, operation: (
            operation.name == "write" and fail_at(count, errno.ENOSPC)(count, operation)
        ),
    ):
        assert save(base, [(5, 0)]).failed
    assert not contents(base).items() >= before.items()


def test_full_disk(tmp_path, report):
    """A full tmpfs, with 50 different amounts of free space."""
    with mounted(tmp_path / "disk", "2m") as disk:
        big = {"filler": np.zeros(50_000, np.float32)}
        writer = CheckpointWriter(disk / "checkpoints", KEEP)
        for epoch in (1, 2):
            writer.write(epoch, 0, big, state_at(epoch))
        writer.wait()
        before, failures = contents(disk / "checkpoints"), 0
        for pages in range(50):
            writer = CheckpointWriter(disk / "checkpoints", KEEP)
            fill(disk / "filler", free=4096 * pages)
            writer.write(3, 0, big, state_at(3))
            writer.wait()
            failures += writer.failed
            assert contents(disk / "checkpoints") == before
            writer.check()
        assert failures == 50
        (disk / "filler").unlink()
        writer.write(3, 0, big, state_at(3))
        writer.wait()
        assert not writer.failed
        assert valid_positions(disk / "checkpoints") == [(1, 0), (2, 0), (3, 0)]
    report(
        5,
        "a full tmpfs with 0 to 49 pages left: each save failed, earlier checkpoints as they were, "
        "then whole again",
        50,
    )


def test_limits_of_the_system(quick, report):
    """Limits of file size and of open files, set in a child as they can't be raised again."""
    base = cleared(quick / "base")
    before, times = contents(base), 0
    for kind, limit in [(resource.RLIMIT_FSIZE, size) for size in range(0, 700, 28)] + [
        (resource.RLIMIT_NOFILE, 200)
    ]:

        def limited(send, kind=kind, limit=limit):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
            opened = []
            with contextlib.suppress(OSError):
                while kind == resource.RLIMIT_NOFILE:
                    opened.append(os.open("/dev/null", os.O_RDONLY))
            writer = save(base, [(5, 0), (5, 1)])
            writer.check()
            send(b"%d failed" % writer.failures)

        status, sent = run_in_fork(limited)
        assert (status, sent) == (0, b"2 failed"), limit
        assert contents(base) == before
        times += 1
    report(
        5,
        "RLIMIT_FSIZE at 25 values, and RLIMIT_NOFILE, of which none lets a save through: as above",
        times,
    )


def test_temporarily_read_only_disk(tmp_path, report):
    with mounted(tmp_path / "disk", "2m") as disk:
        cleared(disk / "checkpoints")
        before = contents(disk / "checkpoints")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        writer = save(disk / "checkpoints", [(5, 0), (5, 1)])
        assert writer.failures == 2
        assert contents(disk / "checkpoints") == before
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        writer.write(5, 2, arrays_at(5, 2), state_at(5))
        writer.wait()
        assert not writer.failed
        assert valid_positions(disk / "checkpoints")[-1] == (5, 2)
    report(5, "a disk remounted read-only during two saves: as above", 2)


def events_of(folder: Path) -> list[tuple[int, str]]:
    """Returns (step, tag) of every event up to the first torn one of each file."""
    events = []
    for path in sorted(folder.glob("events.*")):
        with contextlib.suppress(tf.errors.DataLossError):
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                events += [(event.step, value.tag) for value in event.summary.value]
    return events


@pytest.mark.parametrize("protected", [True, pytest.param(False, marks=pytest.mark.long)])
def test_log_writers_on_a_full_disk(tmp_path, report, protected, caplog):
    """History and events on a disk that is filled up after each row."""
    with mounted(tmp_path / "disk", "1m") as disk:
        events = EventLog(disk / "logs")
        if not protected:
            events._discard_incomplete = lambda: None
        history = History(disk / "history.csv", events, [])
        figures = dict.fromkeys(COLUMNS[1:], 0.5)
        for epoch in range(100):
            history.add(epoch, figures)
            if epoch % 2:
                (disk / "filler").unlink()
            else:
                fill(disk / "filler", free=4096 * (epoch // 2 % 2))
            with (disk / "history.csv").open() as file:
                assert [int(row["epoch"]) for row in csv.DictReader(file)][-1] >= epoch - 1
        (disk / "filler").unlink(missing_ok=True)
        history.add(100, figures)
        events.close()
        assert any("events not written" in line for line in caplog.messages)
        assert not list(disk.glob(".*"))
        seen = events_of(disk / "logs")
        whole_rows = Counter(step for step, _ in seen) == dict.fromkeys(range(101), len(figures))
        assert whole_rows is protected  # so the test can fail
    if protected:
        report(
            5,
            "history.csv and TensorBoard events on a tmpfs that is full at every other epoch: no "
            "row lost, twice or torn",
            50,
        )


@pytest.mark.long
def test_figure_on_full_disk_stays_the_old_one(tmp_path, report):
    with mounted(tmp_path / "disk", "1m") as disk:
        rows = [{"epoch": epoch, "loss": 3.0, "tau": 0.9} for epoch in range(3)]
        curves_figure(disk / "curves.png", rows, "old")
        before = (disk / "curves.png").read_bytes()
        for pages in range(2):
            fill(disk / "filler", free=4096 * pages)
            with pytest.raises(OSError, match="No space left"):
                curves_figure(disk / "curves.png", rows, "new")
            assert [path.name for path in sorted(disk.iterdir())] == ["curves.png", "filler"]
            assert (disk / "curves.png").read_bytes() == before
    report(5, "a figure on a full tmpfs: the old one stays", 2)


def _until(condition, process: subprocess.Popen) -> None:
    def reached() -> bool:
        assert process.poll() is None, process.stderr.read()
        return condition()

    wait_until(reached, pause=0.005)


@pytest.mark.long
def test_run_on_a_temporarily_and_on_a_permanently_full_disk(tmp_path, report):
    with mounted(tmp_path / "disk", "48m") as disk:
        runs.ended(runs.start(tmp_path / "undisturbed"))
        expected = runs.digest(tmp_path / "undisturbed")
        run = disk / "run"
        process = runs.start(run)
        _until(lambda: list_checkpoints(run / "checkpoints"), process)
        fill(disk / "filler")
        printed, errors = runs.ended(process, 74)
        assert (
            errors.count("stopped: 3 saves in a row failed: [Errno 28] No space left on device")
            == 1
        )
        assert printed.count("warning: checkpoint not written") == 2
        assert "Traceback" not in errors
        before = contents(run / "checkpoints")
        assert len(before) >= 3
        _, errors = runs.ended(runs.start(run), 2)  # still full
        assert (
            "expected a folder that can be written; received [Errno 28] No space left on device"
            in errors
        )
        assert contents(run / "checkpoints") == before
        (disk / "filler").unlink()
        process = runs.start(run)
        _until(lambda: len(list_checkpoints(run / "checkpoints")) > len(before) // 3, process)
        fill(disk / "filler")
        for line in process.stdout:
            if "checkpoint not written" in line:
                break
        (disk / "filler").unlink()
        printed, _ = runs.ended(process)
        assert "checkpoints are written again" in printed
        assert runs.digest(run) == expected
    report(
        5,
        "by the command on a tmpfs: full for good, exit code 74 after three saves; full for a "
        "while, the same hash in the end",
        3,
    )
