"""A job of Slurm that is stopped and requeued ends as one that nobody disturbed.

Four processes have the variables that `srun --ntasks=4` gives on one node. As Slurm does before a
job's time limit, all get SIGTERM at once; or one of them is killed.
"""

import os

import pytest

from byol_tf.errors import LOST
from tests.helpers.waiting import wait_until
from tests.reliability.processes import ALL_STEPS, Process, Processes, Run

pytestmark = pytest.mark.long

TASKS = 4
JOB = {
    "SLURM_JOB_ID": str(os.getpid()),  # another one, and so other ports, in each session of tests
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_STEP_TASKS_PER_NODE": str(TASKS),
    "SLURM_NODEID": "0",
}
SLOW = {"moment": "data", "step": 0, "kind": "slow"}


def start(processes: Processes, run: Run, **job) -> list[Process]:
    """Starts the tasks of the job, as it is started first and at each requeue."""
    return [
        processes.start(
            run,
            JOB | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            **({"record": f"{run.record}-{rank}"} if rank else {}),
            **job,
        )
        for rank in range(TASKS)
    ]


def codes(tasks: list[Process]) -> list[int]:
    return [task.wait() for task in tasks]


@pytest.fixture(scope="module")
def undisturbed(processes, tmp_path_factory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed"), **{"devices.strategy": "multi_worker"})
    tasks = start(processes, run)
    assert codes(tasks) == [0] * TASKS, [task.output[-2000:] for task in tasks]
    assert f"worker 1 of {TASKS}; the chief, localhost:" in tasks[0].output
    assert f"the workers are those of Slurm's job {os.getpid()}" in tasks[0].output
    return run


def interrupted(processes: Processes, run: Run) -> list[Process]:
    """Starts the job, and returns its tasks in mid-run."""
    tasks = start(processes, run, faults=[SLOW])
    wait_until(lambda: run.newest() >= 3, lambda: [task.output[-2000:] for task in tasks])
    return tasks


def check_requeued(processes: Processes, run: Run, undisturbed: Run) -> None:
    """Starts the job again; fails the test unless its weights and steps are the undisturbed ones."""
    assert 3 <= run.newest() < ALL_STEPS
    assert codes(start(processes, run)) == [0] * TASKS
    assert run.without_contradiction()
    assert run.digest() == undisturbed.digest()


def test_job_that_comes_to_its_time_limit(processes, undisturbed, tmp_path, report):
    run = Run(tmp_path, **undisturbed.changes)
    tasks = interrupted(processes, run)
    for task in tasks:
        task.send("SIGTERM")
    assert codes(tasks) == [143] * TASKS, [task.output[-2000:] for task in tasks]
    check_requeued(processes, run, undisturbed)
    report("Slurm", "four tasks stopped by SIGTERM and requeued: same steps, same SHA-256", 1)


def test_job_of_which_a_task_is_killed(processes, undisturbed, tmp_path, report):
    run = Run(tmp_path, **undisturbed.changes)
    tasks = interrupted(processes, run)
    tasks[2].send("SIGKILL")
    assert codes(tasks) == [LOST, LOST, -9, LOST], [task.output[-2000:] for task in tasks]
    assert "worker 3 of 4 was lost" in tasks[0].output
    check_requeued(processes, run, undisturbed)
    report("Slurm", "one of four tasks killed, all requeued: same steps, same SHA-256", 1)
