"""Row 7: of two machines of one run, which are two processes that talk over loopback, one fails.
The other notices within a minute, says so and ends with exit code 75, or with that of a signal;
nothing is left over; both are started again, and end as an undisturbed run does.

A pair takes half a minute to begin on two cores, so the failures of a kind follow each other in one
run, which goes on after each. The first machine saves and probes, so it is the one that fails
there; the second one fails at the start and in a step.
"""

import time
from pathlib import Path

import pytest

from byol_tf.errors import LOST
from tests.helpers.waiting import wait_until
from tests.reliability.processes import ALL_STEPS, STEPS, Process, Processes, Run

NOTICED = 60.0
MOMENTS = (("start", 0, 1), ("step", 3, 1), ("probe", STEPS, 0), ("save", STEPS + 3, 0))
"""(moment, steps made, which machine)."""
KINDS = {
    "killed": ("SIGKILL", {}),
    "stopped": ("SIGSTOP", {}),
    "exception": ("raise", {"save": "step"}),  # one of the thread that writes ends no run
    "stuck": (
        "stuck",
        {"step": "data", "probe": "data", "save": "data"},
    ),  # images never come, from that step on
}
"""Name -> (what goes wrong, moments that are other ones then)."""


def run_of_two(folder: Path) -> Run:
    return Run(folder, **{"devices.strategy": "multi_worker"})


@pytest.fixture(scope="module")
def whole_pair(processes, tmp_path_factory) -> Run:
    run = run_of_two(tmp_path_factory.mktemp("whole"))
    processes.finish_pair(run)
    assert run.end() == run.end(other=True)
    return run


def fail_once(
    processes: Processes, run: Run, kind: str, moment: str, step: int, machine: int
) -> tuple[float, Process, Process]:
    """(seconds from the failure to the end of the other one, the one that failed, the other
    one)."""
    mark = run.folder / f"failing-{kind}-{step}"
    fault = {"moment": moment, "step": step, "kind": kind, "mark": str(mark)}
    jobs = [{"patient": True}, {}]
    jobs[machine]["faults"] = [fault]
    pair = processes.pair(run, tuple(jobs))

    def outputs() -> list[str]:
        return [process.output[-2000:] for process in pair]

    wait_until(mark.exists, outputs, pause=0.05)
    if fault["moment"] == "data":
        # Images are prefetched: until the steps before are done there is work.
        wait_until(lambda: run.newest() >= step - 1, outputs, pause=0.05)
    began = time.time()
    other, failed = pair[1 - machine], pair[machine]
    assert other.wait(NOTICED) == LOST, other.output[-3000:]
    return time.time() - began, failed, other


def check_same(run: Run, whole: Run) -> None:
    """Both machines did what both of an undisturbed run do."""
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    assert run.end() == run.end(other=True) == whole.end()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_one_fails(kind, processes, whole_pair, tmp_path, report):
    """Row 7, at four moments one after the other."""
    run, longest, moments = run_of_two(tmp_path), 0.0, []
    wrong, instead = KINDS[kind]
    for meant, step, machine in MOMENTS:
        moment = instead.get(meant, meant)
        moments.append(f"{moment} {step}" if step else moment)
        seconds, failed, other = fail_once(processes, run, wrong, moment, step, machine)
        assert f"worker {machine + 1} of 2" in other.output
        if kind == "stopped":
            failed.send("SIGCONT")
        assert failed.wait() != 0
        longest = max(longest, seconds)
    processes.finish_pair(run)
    check_same(run, whole_pair)
    times = (
        f"noticed within {longest:.1f} s, exit code {LOST}, nothing left over, then the same "
        "SHA-256 on both"
    )
    report(7, f"one of two machines {kind} at {', '.join(moments)}: {times}", len(MOMENTS))


@pytest.mark.long
def test_ten_times_slower_is_not_lost(processes, whole_pair, tmp_path, report):
    """Each of its batches takes 0.3 s; a step takes 0.03 s."""
    run = run_of_two(tmp_path)
    processes.finish_pair(run, ({}, {"faults": [{"moment": "data", "step": 0, "kind": "slow"}]}))
    check_same(run, whole_pair)
    report(7, "one of two machines 10 times slower: nobody ended, same SHA-256 on both", 1)


@pytest.mark.long
@pytest.mark.parametrize("machine", [0, 1])
def test_a_signal_to_one_of_them_alone(machine, processes, whole_pair, tmp_path, report):
    """The first one saves, all stop, and no step is lost."""
    run = run_of_two(tmp_path)
    jobs = [{"patient": True}, {}]
    jobs[machine]["faults"] = [{"moment": "step", "step": 5, "kind": "SIGTERM"}]
    for process in processes.pair(run, tuple(jobs)):
        assert process.wait() == 143, process.output[-3000:]
    assert max(line["step"] for line in run.steps()) == run.newest() < ALL_STEPS
    processes.finish_pair(run)
    check_same(run, whole_pair)
    report(
        7,
        f"SIGTERM to machine {machine + 1} of 2 alone: saved, exit code 143 on both, then the same "
        "SHA-256",
        1,
    )


@pytest.mark.long
def test_without_the_heartbeat_one_that_is_stuck_is_waited_for(processes, tmp_path):
    """So the check can fail."""
    run = run_of_two(tmp_path)
    mark = tmp_path / "mark"
    fault = {"moment": "data", "step": 3, "kind": "stuck", "mark": str(mark)}
    pair = processes.pair(run, ({"stall_exit": False}, {"stall_exit": False, "faults": [fault]}))
    wait_until(mark.exists, pause=0.05)
    assert not pair[0].ended.wait(NOTICED)
    for process in pair:
        process.send("SIGKILL")
        process.wait()
