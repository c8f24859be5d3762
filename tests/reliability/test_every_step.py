"""Rows 1 and 2: a run interrupted after any of its steps, or again and again, ends on the same bits.

A process is a fork of one that has imported TensorFlow and not started its runtime (`child.py`
verifies that); `tests/byol_tf/train/test_resume.py` does the same with new processes. Figures and
export, which come before the first and after the last step, are skipped. The runs have 24 steps in
3 epochs of 8, so there are 25 positions to be interrupted at, from before the first step to after
the last one. Each epoch skips another 3 of the 131 images, which fill no batch.
"""

import random
import shutil
from pathlib import Path

import pytest

from byol_tf.runs.checkpoints import list_checkpoints
from tests.reliability.processes import (
    ALL_STEPS,
    SAVE_ON_SIGNAL_ONLY,
    STEPS,
    Processes,
    Run,
    check_signal,
)

VARIANTS = {
    "float32": {},
    "mixed_bfloat16": {"devices.precision": "mixed_bfloat16"},
    # With devices.strategy=cpu it is refused, being slow there.
    "mixed_float16": {"devices.precision": "mixed_float16", "devices.strategy": "auto"},
    "accumulation": {"training.gradient_accumulation_steps": 2},
    "two processes": {"devices.strategy": "multi_worker"},
}


def trained(processes: Processes, run: Run, **job) -> Run:
    """Trains a run to its end, in one process or two."""
    if run.changes.get("devices.strategy") == "multi_worker":
        processes.finish_pair(run, (job, {}))
    else:
        processes.finish(run, **job)
    return run


def check_resumed(processes: Processes, whole: Run, step: int, folder: Path) -> None:
    """Resumed after a step, a run makes each later step once and ends on the same bits."""
    resumed = trained(processes, whole.as_after(step, folder))
    assert resumed.steps() == whole.steps()[step:], step
    assert resumed.digest(whole.steps()[:step] + resumed.steps()) == whole.digest(), step
    if whole.changes.get("devices.strategy") == "multi_worker":
        assert resumed.steps(other=True) == whole.steps(other=True)[step:], step
    shutil.rmtree(folder)


def test_resumed_killed_and_resumed_again(processes, whole, tmp_path, report):
    """The core of rows 1 and 2: within one epoch and within the next."""
    resumed = whole.as_after(5, tmp_path)
    kill_at(processes, resumed, [STEPS + 4])
    processes.finish(resumed)
    assert resumed.without_contradiction()
    assert resumed.digest(whole.steps()[:5] + resumed.steps()) == whole.digest()
    # Interrupted after its last step, before its final files were written.
    end = trained(processes, whole.as_after(ALL_STEPS, tmp_path / "end"))
    assert (end.root / "history.csv").read_text() == (whole.root / "history.csv").read_text()
    assert end.digest(whole.steps()) == whole.digest()
    report(
        1,
        f"resumed after 5 and after {STEPS + 3} steps of {ALL_STEPS}: same steps, same SHA-256",
        2,
    )


def test_signal_inside_a_step(processes, whole, tmp_path, report):
    """The core of row 6, here as it shares the whole run; `test_signals.py` has the other moments."""
    check_signal(
        processes, whole, Run(tmp_path, **SAVE_ON_SIGNAL_ONLY), "inside the step", 3, "SIGINT"
    )
    report(6, "SIGINT inside a step: saved, exit code 130, same SHA-256", 1)


@pytest.mark.long
@pytest.mark.parametrize(
    "broken",
    [{"shift": 1}, {"shift": -1}, {"means": False}],
    ids=["skipped", "replayed", "means lost"],
)
def test_check_fails_without_a_protection(broken, processes, whole, tmp_path):
    """The control: a batch skipped or repeated, or the epoch's running means lost."""
    resumed = whole.as_after(5, tmp_path / "resumed")
    processes.finish(resumed, **broken)
    assert resumed.steps() != whole.steps()[5:]
    if "shift" in broken:
        assert resumed.digest(whole.steps()) != whole.digest(whole.steps())


@pytest.mark.long
def test_check_fails_without_the_loss_scale(processes, tmp_path):
    """The control of float16."""
    whole = trained(processes, Run(tmp_path / "whole", **VARIANTS["mixed_float16"]), patient=True)
    check_resumed(processes, whole, 5, tmp_path / "resumed")
    lost = whole.as_after(5, tmp_path / "lost")
    processes.finish(lost, scale=False)
    assert lost.digest(whole.steps()) != whole.digest(whole.steps())


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_step(variant, processes, tmp_path, report):
    """Row 1."""
    whole = trained(processes, Run(tmp_path / "whole", **VARIANTS[variant]), patient=True)
    assert [step["step"] for step in whole.steps()] == list(range(1, ALL_STEPS + 1))
    assert list(map(Run.count, list_checkpoints(whole.root / "checkpoints"))) == list(
        range(1, ALL_STEPS + 1)
    )
    for step in range(ALL_STEPS + 1):
        check_resumed(processes, whole, step, tmp_path / str(step))
    report(
        1,
        f"{variant}: resumed from each of {ALL_STEPS + 1} positions: same steps, same SHA-256",
        ALL_STEPS + 1,
    )


def kill_positions(seed: int) -> list[int]:
    """Returns ten steps, ascending: the first, an epoch's last, the run's last, and one twice."""
    inner = random.Random(seed).sample([step for step in range(1, ALL_STEPS) if step % STEPS], 6)
    return sorted([0, STEPS, ALL_STEPS, *inner, inner[0]])


def kill_at(processes: Processes, run: Run, positions: list[int]) -> None:
    """Runs a process up to each position and kills it after that step, before its checkpoint.

    Where a process would start at the position, it is killed before its first step.
    """
    for position in positions:
        starts_there = run.newest() == position
        moment = "before the first step" if starts_there else "step"
        process = processes.start(
            run, patient=True, faults=[{"moment": moment, "step": position, "kind": "SIGKILL"}]
        )
        assert process.wait() == -9, process.output[-3000:]
        assert starts_there or run.newest() >= position - 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_in_one_run(seed, processes, tmp_path, report):
    """Row 2. Each kill loses a step, which is made again: the same one."""
    seeded = {"seed": seed}
    whole, run = (
        trained(processes, Run(tmp_path / "whole", **seeded)),
        Run(tmp_path / "broken", **seeded),
    )
    kill_at(processes, run, kill_positions(seed))
    processes.finish(run)
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    report(
        2,
        f"seed {seed}: killed at steps {', '.join(map(str, kill_positions(seed)))}: same SHA-256",
        len(kill_positions(seed)),
    )
