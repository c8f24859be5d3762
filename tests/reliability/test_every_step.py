"""Rows 1 and 2: a run that is broken off after any of its steps, or again and again, does the same
steps and ends on the same bits.

A process is a fork of one that has imported TensorFlow and not started its runtime (`child.py`
makes sure of that); the tests of `tests/byol_tf/train/test_resume.py` do the same with whole new
ones. Pictures and the export, which come before the first and after the last step, are left out.
The runs have 24 steps, in 3 epochs of 8, so there are 25 places to be broken off at, from before
the first step to after the last one: 25 steps can't be shared evenly by 3 epochs. Each epoch leaves
out another 3 of the 131 images, which fill no batch.
"""

import random
import shutil
from pathlib import Path

import pytest

from byol_tf.runs.checkpoints import list_checkpoints
from tests.reliability.processes import ALL_STEPS, STEPS, Processes, Run

KINDS = {
    "float32": {},
    "mixed_bfloat16": {"devices.precision": "mixed_bfloat16"},
    "mixed_float16": {
        "devices.precision": "mixed_float16",
        "devices.strategy": "auto",
    },  # for a CPU it is refused, being slow there
    "accumulation": {"training.gradient_accumulation_steps": 2},
    "two processes": {"devices.strategy": "multi_worker"},
}


def trained(processes: Processes, run: Run, **job) -> Run:
    """The run, to its end, in one process or two."""
    if run.changes.get("devices.strategy") == "multi_worker":
        processes.finish_pair(run, (job, {}))
    else:
        processes.finish(run, **job)
    return run


def check_resumed(processes: Processes, whole: Run, step: int, folder: Path) -> None:
    """A process that finds the checkpoint after a step makes each of the others once, and the same
    end."""
    again = trained(processes, whole.as_after(step, folder))
    assert again.steps() == whole.steps()[step:], step
    assert again.digest(whole.steps()[:step] + again.steps()) == whole.digest(), step
    if whole.changes.get("devices.strategy") == "multi_worker":
        assert again.steps(other=True) == whole.steps(other=True)[step:], step
    shutil.rmtree(folder)


def test_two_steps_one_process(processes, whole, tmp_path, report):
    """The core of rows 1 and 2: resumed in mid-epoch, killed in the next epoch, and resumed
    again."""
    again = whole.as_after(5, tmp_path)
    broken_off(processes, again, [STEPS + 4])
    processes.finish(again)
    assert again.without_contradiction()
    assert again.digest(whole.steps()[:5] + again.steps()) == whole.digest()
    end = trained(
        processes, whole.as_after(ALL_STEPS, tmp_path / "end")
    )  # stopped before its files were written: now they are
    assert (end.root / "history.csv").read_text() == (whole.root / "history.csv").read_text()
    assert end.digest(whole.steps()) == whole.digest()
    report(
        1,
        f"resumed after 5 and after {STEPS + 3} steps of {ALL_STEPS}: same steps, same SHA-256",
        2,
    )


@pytest.mark.long
@pytest.mark.parametrize(
    "broken",
    [{"shift": 1}, {"shift": -1}, {"means": False}],
    ids=["skipped", "replayed", "means lost"],
)
def test_the_check_fails_where_a_protection_is_taken_out(broken, processes, whole, tmp_path):
    """With the batch after the next one, or the last one again, or without the running means of the
    epoch."""
    again = whole.as_after(5, tmp_path / "again")
    processes.finish(again, **broken)
    assert again.steps() != whole.steps()[5:]
    if "shift" in broken:
        assert again.digest(whole.steps()) != whole.digest(whole.steps())


@pytest.mark.long
def test_a_lost_loss_scale_shows(processes, tmp_path):
    """The control of float16."""
    whole = trained(processes, Run(tmp_path / "whole", **KINDS["mixed_float16"]), patient=True)
    check_resumed(processes, whole, 5, tmp_path / "again")
    again = whole.as_after(5, tmp_path / "lost")
    processes.finish(again, scale=False)
    assert again.digest(whole.steps()) != whole.digest(whole.steps())


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_step(kind, processes, tmp_path, report):
    """Row 1."""
    whole = trained(processes, Run(tmp_path / "whole", **KINDS[kind]), patient=True)
    assert [step["step"] for step in whole.steps()] == list(range(1, ALL_STEPS + 1))
    assert list(map(Run.count, list_checkpoints(whole.root / "checkpoints"))) == list(
        range(1, ALL_STEPS + 1)
    )
    for step in range(ALL_STEPS + 1):
        check_resumed(processes, whole, step, tmp_path / str(step))
    report(
        1,
        f"{kind}: resumed from each of {ALL_STEPS + 1} places: same steps, same SHA-256",
        ALL_STEPS + 1,
    )


def breaks(seed: int) -> list[int]:
    """Ten places to break off at, in order: before the first step, at an epoch's edge, after the
    last one, one of them twice."""
    inner = random.Random(seed).sample([step for step in range(1, ALL_STEPS) if step % STEPS], 6)
    return sorted([0, STEPS, ALL_STEPS, *inner, inner[0]])


def broken_off(processes: Processes, run: Run, places: list[int]) -> None:
    """Each process makes its steps up to a place and is killed there; one that has to die where it
    begins is killed before its first."""
    for place in places:
        begins = run.newest() == place
        moment = "before the first step" if begins else "step"
        process = processes.start(
            run, patient=True, faults=[{"moment": moment, "step": place, "kind": "SIGKILL"}]
        )
        assert process.wait() == -9, process.output[-3000:]
        assert begins or run.newest() >= place - 1  # killed after the step, before its checkpoint


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_ten_breaks_in_one_run(seed, processes, tmp_path, report):
    """Row 2. A kill comes after a step and before its checkpoint, so a step is lost and made again
    each time: the same one."""
    seeded = {"seed": seed}
    whole, run = (
        trained(processes, Run(tmp_path / "whole", **seeded)),
        Run(tmp_path / "broken", **seeded),
    )
    broken_off(processes, run, breaks(seed))
    processes.finish(run)
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    report(
        2,
        f"seed {seed}: killed at steps {', '.join(map(str, breaks(seed)))}: same SHA-256",
        len(breaks(seed)),
    )
