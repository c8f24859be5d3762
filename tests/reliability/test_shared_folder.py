"""A run folder that other processes read or want to write, that was moved or reconfigured."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import RunFolderError
from byol_tf.runs import checkpoint_format, checkpoints
from byol_tf.runs.checkpoints import list_checkpoints, read_newest, recover
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.lock import RunLock
from tests.helpers.waiting import HANG, wait_until
from tests.reliability import runs
from tests.reliability.saves import (
    differs_from_saved,
    folder_with_left_overs,
    forget_tensorflow,
    memory_folder,
    run_in_fork,
    save,
)

HOLD_LOCK = (
    "import sys, time\nfrom byol_tf.runs.lock import RunLock\nwith RunLock(sys.argv[1]): "
    "print('held', flush=True); time.sleep(600)"
)


def holder(folder: Path) -> subprocess.Popen:
    """Starts another process that has the lock of a run folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(folder)],
        cwd=runs.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_second_process_is_refused_and_dead_one_replaced(tmp_path, report):
    waits = []
    for _ in range(10):
        with holder(tmp_path) as process:
            for _ in range(10):
                with (
                    pytest.raises(RunFolderError, match=f"in use by process {process.pid}"),
                    RunLock(tmp_path),
                ):
                    pass
            process.kill()
            began = time.monotonic()
            while True:
                try:
                    with RunLock(tmp_path):
                        break
                except RunFolderError:
                    assert time.monotonic() - began < HANG
            waits.append(time.monotonic() - began)
    taken = (
        "after SIGKILL of the first, on the same machine, the folder was taken over within "
        f"{max(waits):.3f} s at most"
    )
    report(14, f"second process refused; {taken}", 110)


def test_without_system_lock_two_processes_get_in(tmp_path, monkeypatch):
    """Shows that the test before can fail."""
    monkeypatch.setattr("byol_tf.runs.lock.fcntl.flock", lambda *_: None)
    with holder(tmp_path) as process:
        with RunLock(tmp_path):
            assert process.poll() is None
        process.kill()


def test_command_refuses_folder_in_use_or_of_other_config(tmp_path, report):
    """The command refuses both before it imports TensorFlow."""
    run = tmp_path / "run"
    tmp_path.joinpath("run.json").write_text(json.dumps(runs.CONFIG))
    RunFolder(run).begin(
        resolved_json(load_config(str(tmp_path / "run.json"), [])), [], "f1n9e2", ()
    )
    with holder(run) as process:
        _, errors = runs.ended(runs.start(run), 2)
        process.kill()
    assert f"in use by process {process.pid}" in errors
    _, errors = runs.ended(runs.start(run, "--set", "seed=5", "--set", "tau.base=0.5"), 2)
    listed = [line.strip() for line in errors.splitlines() if line.startswith("  ")]
    assert listed == ["seed: 0 there, 5 now", "tau.base: 0.99 there, 0.5 now"]
    report(
        14,
        "by the command: a folder in use refused, and one of other settings, each differing key "
        "listed",
        2,
    )


def torn_reads(folder: Path, reads: int, saves: int) -> tuple[list[str], int]:
    """Reads in one process while another saves.

    Args:
        folder: to work in.
        reads: number of reads.
        saves: least number of saves meanwhile.

    Returns:
        (what is wrong, number of different positions that were read).
    """
    base = folder_with_left_overs(folder / "base")
    recover(base)
    wrong, seen = [], []

    def reading(send):
        send(b"r")
        for number in range(reads):
            if wrong:
                break
            checkpoint, damaged = read_newest(base)
            if checkpoint is None or damaged:
                wrong.append(f"read {number}: {checkpoint and checkpoint[:2]}, {damaged}")
            elif differs_from_saved(checkpoint) or (seen and checkpoint[:2] < seen[-1]):
                wrong.append(f"read {number}: {checkpoint[:2]} after {seen[-1:]}")
            else:
                seen.append(checkpoint[:2])
        send(json.dumps([wrong, len(set(seen))]).encode())

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # saves, until the reader is done
        forget_tensorflow()
        os.close(writer)
        os.set_blocking(reader, False)
        epoch, over = 4, False
        while not over or epoch < 4 + saves:
            epoch += 1
            save(base, [(epoch, 0)])
            try:
                over = os.read(reader, 1) == b""
            except BlockingIOError:
                over = False
        os._exit(0)
    os.close(reader)
    _, sent = run_in_fork(reading)
    os.close(writer)
    assert os.waitpid(child, 0)[1] == 0
    wrong, positions = json.loads(sent[1:])
    return wrong, positions


def test_reads_during_saves_are_never_torn(report):
    with memory_folder() as folder:
        wrong, positions = torn_reads(folder, 1000, 100)
    assert wrong == []
    report(
        14,
        f"reads during at least 100 saves, with removals ({positions} different checkpoints seen): "
        "none torn, none older",
        1000,
    )


@pytest.mark.long  # it waits for a moment that doesn't always come soon
def test_reader_that_lists_once_loses_the_newest(monkeypatch):
    """Shows that the test before can fail: a checkpoint removed while it is read isn't damaged."""

    def once(folder):
        damaged = []
        for path in reversed(list_checkpoints(folder)):
            try:
                position = checkpoints.position_of(path)
                return checkpoints.LoadedCheckpoint(
                    *position, *checkpoint_format.read_files(path, *position)
                ), damaged
            except checkpoint_format.DamagedCheckpoint as error:
                damaged.append(str(error))
        return None, damaged

    monkeypatch.setattr(sys.modules[__name__], "read_newest", once)
    with memory_folder() as folder:
        wrong, _ = torn_reads(folder, 20_000, 1)
    assert wrong


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """A run without any disturbance."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    runs.ended(runs.start(run))
    return run


@pytest.mark.long
def test_moved_run_folder_resumes_to_the_same_bits(undisturbed, tmp_path, report):
    """The resumed run also names the package version that changed meanwhile."""
    run = tmp_path / "run"
    process = runs.start(run)

    def has_two_checkpoints() -> bool:
        assert process.poll() is None, process.stderr.read()
        return len(list_checkpoints(run / "checkpoints")) >= 2

    wait_until(has_two_checkpoints)
    process.kill()
    process.communicate()
    moved = tmp_path / "elsewhere" / "moved"
    moved.parent.mkdir()
    shutil.move(run, moved)
    facts = json.loads((moved / "environment.json").read_text())
    facts["packages"]["keras"] = "1.0"
    (moved / "environment.json").write_text(json.dumps(facts))
    printed, _ = runs.ended(runs.start(moved))
    assert "resuming after epoch" in printed
    assert "changed: keras: 1.0 when the run was started" in printed
    assert runs.digest(moved) == runs.digest(undisturbed)
    assert json.loads(printed.splitlines()[-1])["run_dir"] == str(moved)
    again = moved.rename(tmp_path / "finished")
    printed, _ = runs.ended(runs.start(again))
    assert json.loads(printed.splitlines()[-1])["run_dir"] == str(again)
    report(
        14,
        "by the command: a killed run in a moved folder names the changed version and goes on to "
        "the same hash",
        1,
    )


@pytest.mark.long
def test_run_is_not_restarted_over_damaged_checkpoints(undisturbed, tmp_path, report):
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    (run / "result.json").unlink()
    for path in list_checkpoints(run / "checkpoints"):
        (path / "state.json").unlink()
    before = (run / "history.csv").read_bytes()
    _, errors = runs.ended(runs.start(run), 2)
    assert (
        f"expected a valid checkpoint among {len(list_checkpoints(run / 'checkpoints'))}" in errors
    )
    assert (run / "history.csv").read_bytes() == before
    with (run / "history.csv").open() as file:
        assert len(list(csv.DictReader(file))) == runs.EPOCHS + 1
    report(
        14,
        "by the command: with all checkpoints damaged the run stops with exit code 2, each named, "
        "and nothing begins anew",
        1,
    )
