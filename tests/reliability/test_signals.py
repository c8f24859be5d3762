"""Row 6: SIGTERM, SIGINT and SIGHUP at twenty moments of a run.

No completed step is lost, the exit code is 128 + n, and the resumed run ends on the same bits. A
process sends the signal to itself, so that it comes at an exact moment;
`tests/byol_tf/train/test_signals.py` sends signals from outside.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG, wait_until
from tests.reliability.processes import (
    ALL_STEPS,
    ROOT,
    SAVE_ON_SIGNAL_ONLY,
    STEPS,
    Process,
    Run,
    check_signal,
    stopped_by_signal,
)

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
MOMENTS = [
    ("start", 0),  # images are being opened
    ("reading", 0),  # before the newest checkpoint is read
    ("probe", 0),  # of the untrained encoder
    ("before the first step", 0),
    ("tracing", 0),
    ("data", 0),  # a batch is awaited
    ("data", 11),
    ("inside the step", 0),
    ("inside the step", 3),
    ("inside the step", STEPS - 1),
    ("step", 1),  # between two steps
    ("step", 4),
    ("step", STEPS),  # after an epoch's last step, before its end
    ("epoch end", STEPS),
    ("probe", STEPS),
    ("save", STEPS),  # inside the save at an epoch's end
    ("save", ALL_STEPS),
    ("step", ALL_STEPS - 1),
    ("step", ALL_STEPS),
    ("probe", ALL_STEPS),
    ("finish", ALL_STEPS),  # figures and export
]


@pytest.mark.long
def test_steps_are_lost_without_the_watch(processes, tmp_path):
    """The control of those below."""
    completed, saved = stopped_by_signal(
        processes, Run(tmp_path, **SAVE_ON_SIGNAL_ONLY), "step", 4, "SIGTERM", watched=False
    )
    assert completed > saved


@pytest.mark.long
def test_signal_at_twenty_moments(processes, whole, tmp_path, report):
    """Row 6, each moment with one of the three signals."""
    for number, (moment, step) in enumerate(MOMENTS):
        check_signal(
            processes,
            whole,
            Run(tmp_path / str(number), **SAVE_ON_SIGNAL_ONLY),
            moment,
            step,
            NAMES[number % 3],
        )
    report(
        6,
        f"a signal at {len(MOMENTS)} moments: all completed steps saved, exit code 128 + n, "
        "same SHA-256",
        len(MOMENTS),
    )


def wait_for(text: str, process: Process, after: int = 0) -> None:
    """Returns once a process has printed a text, after so many characters."""

    def printed() -> bool:
        assert process.code is None, process.output[-3000:]
        return process.output_file.exists() and text in process.output[after:]

    wait_until(printed, lambda: process.output[-3000:], pause=0.05)


@pytest.mark.long
def test_signal_while_a_batch_never_comes(processes, whole, tmp_path, report):
    """The watchdog's thread saves the completed steps while the training thread is blocked."""
    run, stuck = Run(tmp_path, **SAVE_ON_SIGNAL_ONLY), tmp_path / "stuck"
    fault = {"moment": "data", "step": STEPS + 3, "kind": "stuck", "mark": str(stuck)}
    process = processes.start(run, faults=[fault], patience=6)
    wait_until(stuck.exists, lambda: process.output[-3000:])
    # From here on: on a busy machine the first images may take 6 s too.
    wait_for("has waited 6 s for images", process, after=len(process.output))
    process.send("SIGTERM")
    assert process.wait() == 143
    completed = run.steps()[-1]["step"]
    assert completed == run.newest() >= STEPS + 3
    assert (
        f"stopped by SIGTERM after epoch 1 of 3, step {completed - STEPS} of {STEPS} in the next; "
        "saved. To resume:" in process.output
    )
    processes.finish(run)
    assert [line["step"] for line in run.steps()] == list(range(1, ALL_STEPS + 1))
    assert run.digest() == whole.digest()
    report(
        6,
        "SIGTERM while a batch never comes: all completed steps saved, exit code 143, same SHA-256",
        1,
    )


@pytest.mark.long
def test_signal_while_a_save_never_ends(processes, whole, tmp_path, report):
    """The hanging save is reported, and the run ends on the checkpoint before it."""
    run = Run(tmp_path, **SAVE_ON_SIGNAL_ONLY | {"run.stall_timeout_minutes": 8 / 60})
    process = processes.start(
        run, faults=[{"moment": "save", "step": 2 * STEPS, "kind": "stuck"}], patience=6
    )
    # First, as steps that are still made while the save hangs don't wait for it.
    wait_for("has waited 6 s for a checkpoint to be written", process)
    wait_for("has made no progress for 8 s. Is that disk still mounted?", process)
    # Since the second epoch: on a busy machine the first images may take 6 s.
    assert "for images" not in process.output.partition(" 2/3 ")[2]
    process.send("SIGTERM")
    assert process.wait() == 143
    assert (
        f"the save hangs; the newest checkpoint is {run.root / 'checkpoints' / 'epoch-0001'}"
        in process.output
    )
    assert "not saved: the newest earlier checkpoint is used. To resume:" in process.output
    processes.finish(run)
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    report(
        6,
        "SIGTERM while a save never ends: exit code 143, the newest checkpoint named, same SHA-256",
        1,
    )


@pytest.mark.long
@pytest.mark.parametrize("moment", [("save", STEPS), ("step", 4)])
def test_second_signal_exits_at_once(moment, processes, whole, tmp_path, report):
    """A checkpoint that was being written may be lost; it is valid or not there."""
    run = Run(tmp_path, **SAVE_ON_SIGNAL_ONLY)
    process = processes.start(
        run, faults=[{"moment": moment[0], "step": moment[1], "kind": "twice"}]
    )
    assert process.wait() == 143, process.output[-3000:]
    processes.finish(run)
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    report(6, f"SIGTERM twice, {moment[0]}: exit code 143, same SHA-256", 1)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_signal_while_the_command_is_imported(name, whole, tmp_path, report):
    """New processes get it at a random moment of their first three seconds.

    Before Python has reached the command's first line the system's default action holds, which
    shells report as the same exit code.
    """
    run, moments = Run(tmp_path, **SAVE_ON_SIGNAL_ONLY), 3
    tmp_path.mkdir(exist_ok=True)
    for _ in range(moments):
        line = [sys.executable, "-m", "byol_tf.train", *run.arguments()]
        process = subprocess.Popen(
            line,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=reset_handlers,
        )
        time.sleep(random.uniform(0.05, 3.0))
        process.send_signal(getattr(signal, name))
        printed, _ = process.communicate(timeout=HANG)
        assert process.returncode in (128 + getattr(signal, name), -getattr(signal, name)), printed[
            -3000:
        ]
        assert run.newest() == 0
    assert not list(Path(run.root).rglob("*.part"))
    report(6, f"{name} while the command is imported: exit code 128 + n", moments)
