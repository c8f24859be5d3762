"""Row 13: two processes of one run, others that take the processors from them, and a fault of
another kind every minute of training.

`BYOL_TF_SOAK_MINUTES` is how long it trains between faults, about; 15 by default. An undisturbed
run of as many steps beside the same hogs comes first: its bits and its speed are the measure, and
its memory, threads and open files are watched. Broken images (row 9) have tests of their own: this
run draws its images.
"""

import contextlib
import itertools
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from byol_tf.errors import LOST
from byol_tf.runs.checkpoints import list_checkpoints
from tests.helpers.waiting import HANG, wait_until
from tests.reliability.processes import BATCH, REST, Process, Processes, Run, no_process_left

MINUTES = float(os.environ.get("BYOL_TF_SOAK_MINUTES", "15"))
EPOCH_STEPS, WARM_UP = 100, 50
STEPS_A_MINUTE = 200  # about what two cores beside the hogs make
EPOCHS = max(2, round(MINUTES * STEPS_A_MINUTE / EPOCH_STEPS))
HOGS = 2
LAST_FAULT = 30.0
"""Seconds of steps that must be left for a fault: some take ten, and none may meet the run's
end."""


@contextlib.contextmanager
def hogs() -> Iterator[None]:
    """Processes that take all the processor's time that they get."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def killed(pair: tuple[Process, Process], run: Run, draw: random.Random) -> None:
    draw.choice(pair).send("SIGKILL")


def signalled(pair: tuple[Process, Process], run: Run, draw: random.Random) -> None:
    draw.choice(pair).send(draw.choice(["SIGTERM", "SIGINT", "SIGHUP"]))


def stopped(pair: tuple[Process, Process], run: Run, draw: random.Random) -> None:
    one = draw.choice(pair)
    one.send("SIGSTOP")
    for other in pair:
        if other is not one:
            assert other.wait() == LOST
    one.send("SIGCONT")


def damaged(pair: tuple[Process, Process], run: Run, draw: random.Random) -> None:
    """Killed, and a bit of the newest checkpoint is another one afterwards."""
    pair[0].send("SIGKILL")
    for process in pair:
        process.wait()
    path = list_checkpoints(run.root / "checkpoints")[-1] / "arrays.npz"
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def out_of_files(pair: tuple[Process, Process], run: Run, draw: random.Random) -> None:
    """Within an epoch the first machine can open no file, until a save has failed, which ends no
    run; then it is killed.

    At an epoch's edge TensorFlow itself opens pipes, and a run that can't ends there with its
    error, and goes on where it is begun again.
    """
    while (
        not 0 < run.lines()[-1]["step"] % EPOCH_STEPS <= EPOCH_STEPS // 2
    ):  # its last step may be made and its edge not passed
        assert pair[0].code is None, pair[0].output[-2000:]
        time.sleep(0.05)
    whole = psutil.Process(pair[0].pid).rlimit(resource.RLIMIT_NOFILE)
    psutil.Process(pair[0].pid).rlimit(resource.RLIMIT_NOFILE, (3, whole[1]))
    while "checkpoint not written" not in pair[0].output:
        assert all(process.code is None for process in pair), [
            process.output[-2000:] for process in pair
        ]
        assert run.lines()[-1]["step"] % EPOCH_STEPS < EPOCH_STEPS - 5, "no save was tried"
        time.sleep(0.05)
    psutil.Process(pair[0].pid).rlimit(resource.RLIMIT_NOFILE, whole)
    pair[0].send("SIGKILL")


FAULTS: tuple[Callable[[tuple[Process, Process], Run, random.Random], None], ...] = (
    killed,
    signalled,
    stopped,
    damaged,
    out_of_files,
)


def measured(pair: tuple[Process, Process], run: Run) -> list[tuple[int, int, int, int]]:
    """(steps, bytes, threads, open files) of the first machine every second, to its end."""
    samples = []
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pair[0].pid)
        while pair[0].code is None:
            lines = run.lines()
            if lines:
                samples.append(
                    (
                        lines[-1]["step"],
                        process.memory_info().rss,
                        process.num_threads(),
                        process.num_fds(),
                    )
                )
            time.sleep(1.0)
    return samples


def step_seconds(run: Run) -> float:
    """Median over the steps of each process's life but for its first ones, and those on which an
    epoch ended."""
    lines = run.lines()
    lives, gaps = 0, []
    for before, after in itertools.pairwise(lines):
        lives = (
            0
            if after["step"] != before["step"] + 1 or after["time"] - before["time"] > 10
            else lives + 1
        )
        if lives > WARM_UP and after["epoch"] == before["epoch"]:
            gaps.append(after["time"] - before["time"])
    return statistics.median(gaps)


def seconds_left(run: Run, whole: Run) -> float:
    """Of the steps that a run has still to make, at the undisturbed one's pace."""
    return (EPOCHS * EPOCH_STEPS - run.lines()[-1]["step"]) * step_seconds(whole)


@pytest.mark.long
def test_soak(tmp_path, report):
    """Row 13."""
    changes = {
        "devices.strategy": "multi_worker",
        "data.pretrain_images": BATCH * EPOCH_STEPS + REST,
        "training.epochs": EPOCHS,
        "probe.every_epochs": EPOCHS,
        "run.checkpoint_every_steps": EPOCH_STEPS // 4,
        "run.keep_checkpoints": 3,
    }
    whole, run, draw = (
        Run(tmp_path / "whole", **changes),
        Run(tmp_path / "soaked", **changes),
        random.Random(int(MINUTES)),
    )
    with no_process_left(), Processes() as processes, hogs():
        pair = processes.pair(whole)
        pair[0].begun.wait(HANG)
        samples = measured(pair, whole)
        assert [process.wait() for process in pair] == [0, 0], pair[0].output[-3000:]
        faults, began = [], time.time()
        while True:
            pair = processes.pair(run)
            first = len(run.lines())
            wait_until(
                lambda pair=pair, first=first: (
                    len(run.lines()) >= first + WARM_UP or pair[0].code is not None
                ),
                lambda pair=pair: pair[0].output[-3000:],
                pause=0.2,
            )
            if not pair[0].ended.wait(60) and seconds_left(run, whole) > LAST_FAULT:
                fault = (
                    FAULTS[len(faults) % len(FAULTS)]
                    if len(faults) < len(FAULTS)
                    else draw.choice(FAULTS)
                )
                fault(pair, run, draw)
                faults.append(fault.__name__)
            codes = [process.wait() for process in pair]
            if codes == [0, 0]:
                break
            assert 0 not in codes, (codes, pair[0].output[-3000:])
    minutes = (time.time() - began) / 60
    assert run.without_contradiction()
    assert run.digest() == whole.digest()
    assert run.end() == run.end(other=True) == whole.end()
    speed = step_seconds(whole) / step_seconds(run)
    assert speed >= 0.85
    slope, threads, files = growth(samples)
    assert slope <= 2**20
    assert threads <= 1
    assert files <= 1
    report(
        13,
        f"{EPOCHS * EPOCH_STEPS:,} steps in {minutes:.0f} minutes with {', '.join(faults)}: same "
        f"SHA-256; {speed:.0%} of the undisturbed "
        f"speed between faults; the undisturbed run: {slope / 2**20:+.2f} MiB per 1,000 steps, "
        f"{threads:+g} threads, {files:+g} open files",
        len(faults),
    )


@pytest.mark.long
def test_the_memory_of_two_machines_is_level(tmp_path, report):
    """Row 13's measure of memory in a shorter run, and with the protection taken out: each step's
    collectives get new keys."""
    changes = {
        "devices.strategy": "multi_worker",
        "data.pretrain_images": BATCH * EPOCH_STEPS + REST,
        "training.epochs": 10,
    }
    changes |= {
        "probe.every_epochs": 10,
        "run.checkpoint_every_steps": EPOCH_STEPS // 4,
        "run.keep_checkpoints": 3,
    }
    slopes = []
    with no_process_left(), Processes() as processes:
        for name, job in (("level", {}), ("growing", {"keys": False})):
            run = Run(tmp_path / name, **changes)
            pair = processes.pair(run, (job, job))
            pair[0].begun.wait(HANG)
            samples = measured(pair, run)
            assert [process.wait() for process in pair] == [0, 0], pair[0].output[-3000:]
            slopes.append(growth(samples)[0] / 2**20)
    assert slopes[0] < 4.0
    assert slopes[1] > 5.0 * max(slopes[0], 1.0)
    report(
        13,
        f"two machines, 1,000 steps: {slopes[0]:+.2f} MiB per 1,000 steps; with new keys for "
        f"collectives {slopes[1]:+.1f}",
        2,
    )


def growth(samples: list[tuple[int, int, int, int]]) -> tuple[float, float, float]:
    """Bytes per 1,000 steps by least squares, and how many more threads and open files in the last
    third than in the middle one.

    Over the last two thirds: buffers and caches are filled in the first.
    """
    steps, memory, threads, files = np.array(samples[len(samples) // 3 :], float).T
    half = len(steps) // 2
    more = [float(np.median(each[half:]) - np.median(each[:half])) for each in (threads, files)]
    return 1_000 * float(np.polyfit(steps, memory, 1)[0]), *more


def test_growth_is_seen():
    """The measure of row 13 finds a leak of 2 MiB per 1,000 steps, and one of threads and files."""
    level = [(step, 10**9, 20, 50) for step in range(900)]
    assert growth(level) == (pytest.approx(0.0, abs=1.0), 0.0, 0.0)
    leaking = [
        (step, 10**9 + 2 * 2**20 * step // 1_000, 20 + step // 100, 50 + step // 50)
        for step in range(900)
    ]
    slope, threads, files = growth(leaking)
    assert slope > 1.9 * 2**20
    assert threads >= 2
    assert files >= 4
