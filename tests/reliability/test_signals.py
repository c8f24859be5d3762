"""Row 6: SIGTERM, SIGINT and SIGHUP at twenty moments: no step that was made is lost, the exit code
is 128 + n, and the run ends on the same bits. A process sends the signal to itself, so that it
comes at the moment that is meant; in `tests/byol_tf/train/test_signals.py` others do.
"""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reliability.processes import ALL_STEPS, ROOT, STEPS, Process, Processes, Run

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")
MOMENTS = [
    ("start", 0),  # the images are opened
    ("reading", 0),  # a checkpoint is looked for
    ("probe", 0),  # of the untrained encoder
    ("before the first step", 0),
    ("tracing", 0),
    ("data", 0),  # a batch is waited for
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
ONLY_WHERE_ASKED = {"run.checkpoint_every_steps": None}
"""So that within an epoch only a signal saves."""


def stopped(
    processes: Processes, run: Run, moment: str, step: int, name: str, **job
) -> tuple[int, int]:
    """(steps made, steps saved) by a process that got a signal and ended by it."""
    slow = [{"moment": "data", "step": 0, "kind": "slow"}] if moment == "data" else []
    process = processes.start(
        run, faults=[*slow, {"moment": moment, "step": step, "kind": name}], **job
    )
    assert process.wait() == 128 + getattr(signal, name), (moment, process.output[-3000:])
    return max((line["step"] for line in run.steps()), default=0), run.newest()


def check(processes: Processes, whole: Run, run: Run, moment: str, step: int, name: str) -> None:
    made, saved = stopped(processes, run, moment, step, name)
    assert made == saved, (moment, made, saved)
    processes.finish(run)
    assert [line["step"] for line in run.steps()] == list(range(1, ALL_STEPS + 1)), (
        moment
    )  # so none was made twice
    assert run.digest() == whole.digest(), moment


def test_inside_a_step(processes, whole, tmp_path, report):
    """The core of row 6."""
    check(processes, whole, Run(tmp_path, **ONLY_WHERE_ASKED), "inside the step", 3, "SIGINT")
    report(6, "SIGINT inside a step: saved, exit code 130, same SHA-256", 1)


@pytest.mark.long
def test_without_the_watch_steps_are_lost(processes, tmp_path):
    """So the check can fail."""
    made, saved = stopped(
        processes, Run(tmp_path, **ONLY_WHERE_ASKED), "step", 4, "SIGTERM", watched=False
    )
    assert made > saved


@pytest.mark.long
def test_at_twenty_moments(processes, whole, tmp_path, report):
    """Row 6, each moment with one of the three signals."""
    for number, (moment, step) in enumerate(MOMENTS):
        check(
            processes,
            whole,
            Run(tmp_path / str(number), **ONLY_WHERE_ASKED),
            moment,
            step,
            NAMES[number % 3],
        )
    report(
        6,
        f"a signal at {len(MOMENTS)} moments: all made steps saved, exit code 128 + n, same "
        "SHA-256",
        len(MOMENTS),
    )


def wait_for(text: str, process: Process) -> None:
    """Returns when a process has printed it."""
    deadline = time.time() + 200
    while not process.output_file.exists() or text not in process.output:
        assert process.code is None, process.output[-3000:]
        assert time.time() < deadline, process.output[-3000:]
        time.sleep(0.05)


@pytest.mark.long
def test_while_a_batch_never_comes(processes, whole, tmp_path, report):
    """What is made is saved by the thread that watches the input, though the one that trains gets
    no turn."""
    run = Run(tmp_path, **ONLY_WHERE_ASKED)
    process = processes.start(
        run, faults=[{"moment": "data", "step": STEPS + 3, "kind": "stuck"}], patience=6
    )
    wait_for("has waited 6 s for images", process)
    process.send("SIGTERM")
    assert process.wait(20) == 143
    made = run.steps()[-1]["step"]
    assert made == run.newest() >= STEPS + 3
    assert (
        f"stopped by SIGTERM after epoch 1 of 3, step {made - STEPS} of {STEPS} in the next; "
        "saved. To resume:" in process.output
    )
    processes.finish(run)
    assert [line["step"] for line in run.steps()] == list(range(1, ALL_STEPS + 1))
    assert run.digest() == whole.digest()
    report(
        6, "SIGTERM while a batch never comes: all made steps saved, exit code 143, same SHA-256", 1
    )


@pytest.mark.long
def test_while_a_save_never_ends(processes, whole, tmp_path, report):
    """It is said what is waited for, and the run ends on the checkpoint before."""
    run = Run(tmp_path, **ONLY_WHERE_ASKED)
    process = processes.start(
        run, faults=[{"moment": "save", "step": 2 * STEPS, "kind": "stuck"}], patience=6
    )
    wait_for("isn't done. Is that disk still there?", process)
    assert "has waited 6 s for a checkpoint to be written" in process.output
    assert "for images" not in process.output
    process.send("SIGTERM")
    assert process.wait(10) == 143
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
def test_twice(moment, processes, whole, tmp_path, report):
    """The second one ends at once: a checkpoint that was being written may be lost, and is whole or
    not there."""
    run = Run(tmp_path, **ONLY_WHERE_ASKED)
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
def test_while_the_command_is_imported(name, whole, tmp_path, report):
    """Whole new processes, at random moments of their first three seconds. Before Python has come
    to the command's first line the system's own rule holds, which shells report as the same exit
    code."""
    run, moments = Run(tmp_path, **ONLY_WHERE_ASKED), 3
    tmp_path.mkdir(exist_ok=True)
    for _ in range(moments):
        line = [sys.executable, "-m", "byol_tf.train", *run.arguments()]
        process = subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=listening
        )
        time.sleep(random.uniform(0.05, 3.0))
        process.send_signal(getattr(signal, name))
        printed, _ = process.communicate(timeout=100)
        assert process.returncode in (128 + getattr(signal, name), -getattr(signal, name)), printed[
            -3000:
        ]
        assert run.newest() == 0
    assert not list(Path(run.root).rglob("*.part"))
    report(6, f"{name} while the command is imported: exit code 128 + n", moments)


def listening() -> None:
    """In the new process: nothing is ignored, as it may be in a shell's background."""
    for name in NAMES:
        signal.signal(
            getattr(signal, name),
            signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL,
        )
