"""Row 7: one of two workers fails; the other notices within a minute, names it and exits.

The exit code is 75, or 128 + n after signal n; nothing is left over; both are started again and end
as an undisturbed run does. A pair takes half a minute to start on two cores, so the failures of one
type follow each other in one run, which is resumed after each. The chief saves and probes, so it is
the worker that fails there; the other one fails at the start and in a step.
"""

import time
from pathlib import Path

import pytest

from byol_tf.errors import LOST
from tests.helpers.waiting import wait_until
from tests.helpers.workers import HANG
from tests.reliability.processes import ALL_STEPS, STEPS, Process, Processes, Run

NOTICED = 60.0
"""Seconds within which a failure has to be noticed: the promise, and no guard against hanging."""
MOMENTS = (("start", 0, 1), ("step", 3, 1), ("probe", STEPS, 0), ("save", STEPS + 3, 0))
"""(moment, steps made, index of the failing worker)."""
FAILURES = {
    "killed": ("SIGKILL", {}),
    "stopped": ("SIGSTOP", {}),
    "exception": ("raise", {"save": "step"}),  # one of the thread that writes ends no run
    # Images never arrive, from that step on.
    "stuck": ("stuck", {"step": "data", "probe": "data", "save": "data"}),
}
"""Name -> (what goes wrong, moments that it has in place of those above)."""


def run_of_two(folder: Path) -> Run:
    quick = {"devices.worker_timeout_minutes": 0.25, "run.stall_timeout_minutes": 0.5}
    return Run(folder, **{"devices.strategy": "multi_worker"} | quick)


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory) -> Run:
    run = run_of_two(tmp_path_factory.mktemp("undisturbed"))
    processes.finish_pair(run)
    assert run.end() == run.end(other=True)
    return run


def wait_for(pair: tuple[Process, Process], condition) -> None:
    """Waits for a condition; fails the test, with what both printed, if it never holds."""
    deadline = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < deadline, [process.output[-2000:] for process in pair]
        time.sleep(0.05)


def fail_once(
    processes: Processes, run: Run, failure: str, moment: str, step: int, worker: int
) -> tuple[float, Process, Process]:
    """Has one worker fail.

    Returns:
        Seconds from the failure to the exit of the other worker, the failing one, the other one.
    """
    mark = run.folder / f"failing-{failure}-{step}"
    fault = {"moment": moment, "step": step, "kind": failure, "mark": str(mark)}
    jobs = [{"patient": True}, {}]
    jobs[worker]["faults"] = [fault]
    pair = processes.pair(run, tuple(jobs))

    def outputs() -> list[str]:
        return [process.output[-2000:] for process in pair]

    wait_until(mark.exists, outputs, pause=0.05)
    if moment == "data":  # images are read ahead: the steps before are still to be made
        wait_until(lambda: run.newest() >= step - 1, outputs, pause=0.05)
    began = time.monotonic()
    other, failing = pair[1 - worker], pair[worker]
    assert other.wait(NOTICED) == LOST, other.output[-3000:]
    return time.monotonic() - began, failing, other


def check_same(run: Run, undisturbed: Run) -> None:
    """Checks that both workers made the steps of an undisturbed run."""
    assert run.without_contradiction()
    assert run.digest() == undisturbed.digest()
    assert run.end() == run.end(other=True) == undisturbed.end()


@pytest.mark.long
@pytest.mark.parametrize("name", FAILURES)
def test_failing_worker_is_named_and_restart_gives_same_weights(
    name, processes, undisturbed, tmp_path, report
):
    run, longest, moments = run_of_two(tmp_path), 0.0, []
    failure, replaced_moments = FAILURES[name]
    for usual_moment, step, worker in MOMENTS:
        moment = replaced_moments.get(usual_moment, usual_moment)
        moments.append(f"{moment} {step}" if step else moment)
        seconds, failing, other = fail_once(processes, run, failure, moment, step, worker)
        assert f"worker {worker + 1} of 2" in other.output
        if name == "stopped":
            failing.send("SIGCONT")
        assert failing.wait() != 0
        longest = max(longest, seconds)
    processes.finish_pair(run)
    check_same(run, undisturbed)
    report(
        7,
        f"one of two workers {name} at {', '.join(moments)}: noticed within {longest:.1f} s, exit "
        f"code {LOST}, nothing left over, then the same SHA-256 on both",
        len(MOMENTS),
    )


@pytest.mark.long
def test_ten_times_slower_worker_is_not_lost(processes, undisturbed, tmp_path, report):
    """Each of its batches takes 0.3 s; a step takes 0.03 s."""
    run = run_of_two(tmp_path)
    processes.finish_pair(run, ({}, {"faults": [{"moment": "data", "step": 0, "kind": "slow"}]}))
    check_same(run, undisturbed)
    report(7, "one of two workers 10 times slower: nobody exited, same SHA-256 on both", 1)


@pytest.mark.long
@pytest.mark.parametrize("worker", [0, 1])
def test_signal_to_one_worker_stops_both_after_a_save(
    worker, processes, undisturbed, tmp_path, report
):
    """The chief saves, and no step is lost."""
    run = run_of_two(tmp_path)
    jobs = [{"patient": True}, {}]
    jobs[worker]["faults"] = [{"moment": "step", "step": 5, "kind": "SIGTERM"}]
    for process in processes.pair(run, tuple(jobs)):
        assert process.wait() == 143, process.output[-3000:]
    assert max(line["step"] for line in run.steps()) == run.newest() < ALL_STEPS
    processes.finish_pair(run)
    check_same(run, undisturbed)
    report(
        7,
        f"SIGTERM to worker {worker + 1} of 2 alone: saved, exit code 143 on both, then the same "
        "SHA-256",
        1,
    )


@pytest.mark.long
def test_without_the_watchdog_stuck_worker_is_waited_for(processes, tmp_path):
    """The negative control."""
    run = run_of_two(tmp_path)
    mark = tmp_path / "mark"
    fault = {"moment": "data", "step": 3, "kind": "stuck", "mark": str(mark)}
    pair = processes.pair(run, ({"stall_exit": False}, {"stall_exit": False, "faults": [fault]}))
    wait_until(mark.exists, pause=0.05)
    assert not pair[0].ended.wait(NOTICED)
    for process in pair:
        process.send("SIGKILL")
        process.wait()
