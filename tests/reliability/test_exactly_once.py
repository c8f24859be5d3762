"""Row 8: each image once an epoch, in the same order and with the same views, whoever reads,
however often it is killed."""

import collections
import json
import os
import random
import signal
import statistics
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_until
from tests.reliability.processes import Processes

COUNT, BATCH, EPOCHS = 10_007, 64, 3
STEPS = COUNT // BATCH
"""Of an epoch; another 23 images fill no batch in each."""


def lines_of(record: Path) -> tuple[list[float], list[list]]:
    """(seconds until each process's first batch, `[step, row, index, digest]` of each image). A
    line that a kill cut off isn't one."""
    seconds, images = [], []
    for line in record.read_text().splitlines(keepends=True) if record.exists() else []:
        if line.endswith("]\n"):
            images.append(json.loads(line))
        elif line.endswith("\n") and not line.endswith("]"):
            seconds.append(float(line))
    return seconds, images


def whole_steps(images: list[list], rows: int) -> list[list]:
    """Only those of steps that are there whole, which is what a checkpoint would know of."""
    counts = collections.Counter(step for step, *_ in images)
    return [line for line in images if counts[line[0]] == rows]


def read_through(
    processes: Processes,
    folder: Path,
    last: int,
    kills: int,
    threads=(1,),
    workers=(1,),
    count=COUNT,
    shift=0,
) -> list[list]:
    """Steps 0 to `last`, by processes of which so many are killed; each next one has another number
    of threads, and of processes beside."""
    folder.mkdir(exist_ok=True)
    draw, seen, part = random.Random(7), [], 0
    places = [*sorted(draw.sample(range(1, last), kills)), last]
    for turn, place in enumerate(places):
        sharing = workers[turn % len(workers)]
        step = 1 + max((line[0] for line in seen), default=-1)
        readers = []
        for worker in range(sharing):
            record = folder / f"{part}"
            part += 1
            how = {
                "count": count,
                "batch_size": BATCH,
                "first": step,
                "last": last,
                "threads": threads[turn % len(threads)],
            }
            who = {"worker": worker, "workers": sharing, "shift": shift if turn else 0}
            readers.append((record, processes.read(folder, record=str(record), **how, **who)))
        for record, process in readers:
            rows = BATCH // sharing
            if place == last:
                assert process.wait() == 0, process.output
            else:  # while it reads on, some steps after the place
                wait_until(
                    lambda record=record, process=process, place=place: (
                        (lines_of(record)[1] or [[-1]])[-1][0] >= place or process.code is not None
                    ),
                    pause=0.005,
                )
                if process.code is None:
                    os.kill(process.pid, signal.SIGKILL)
                process.wait()
        # All go on after the last step that each of them has made, as after a checkpoint.
        made = [whole_steps(lines_of(record)[1], rows) for record, _ in readers]
        common = min(lines[-1][0] if lines else step - 1 for lines in made)
        seen += [line for lines in made for line in lines if line[0] <= common]
        if common == last - 1:
            break
    return sorted(seen)


def check_once(images: list[list], epochs: int, count: int = COUNT) -> None:
    """Each image at most once an epoch, and all but those that fill no batch."""
    steps = count // BATCH
    for epoch in range(epochs):
        indices = [index for step, _, index, _ in images if step // steps == epoch]
        assert len(indices) == len(set(indices)) == steps * BATCH
        assert set(indices) <= set(range(count))


def test_kills_threads_and_processes_in_one_small_epoch(processes, tmp_path, report):
    """The core: 1,003 images, three kills, 1 to 16 threads, 1 -> 2 -> 1 processes; and a resume
    that skips a batch is found out."""
    count, last = 1_003, 1_003 // BATCH
    undisturbed = read_through(processes, tmp_path / "whole", last, kills=0, count=count)
    check_once(undisturbed, 1, count)
    assert (
        read_through(
            processes,
            tmp_path / "killed",
            last,
            3,
            threads=(1, 16, 4),
            workers=(1, 2, 1),
            count=count,
        )
        == undisturbed
    )
    wrong = read_through(processes, tmp_path / "wrong", last, 1, count=count, shift=1)
    assert wrong != undisturbed
    with pytest.raises(AssertionError):
        check_once(wrong, 1, count)
    report(
        8,
        "1,003 images, 1 epoch, 3 kills, 1 to 16 threads, 1 to 2 processes: each once, same order, "
        "same views",
        3,
    )


@pytest.mark.long
def test_three_epochs(processes, tmp_path, report):
    """Row 8: 10,007 images, 3 epochs, 20 kills, 1 to 16 reader threads, 1 -> 2 -> 1 processes in
    mid-epoch."""
    last, kills = EPOCHS * STEPS, 20
    undisturbed = read_through(processes, tmp_path / "whole", last, kills=0)
    check_once(undisturbed, EPOCHS)
    assert (
        len(
            {
                tuple(line[2] for line in undisturbed if line[0] // STEPS == epoch)
                for epoch in range(EPOCHS)
            }
        )
        == EPOCHS
    )
    for threads, workers in (((1, 2, 4, 8, 16), (1,)), ((4,), (1, 2, 1))):
        killed = read_through(processes, tmp_path / f"{threads}", last, kills, threads, workers)
        assert killed == undisturbed
        times = (
            f"{COUNT:,} images, {EPOCHS} epochs, {kills} kills, {min(threads)} to "
            f"{max(threads)} threads, {max(workers)} processes"
        )
        report(8, f"{times}: each image once an epoch, same order, same views", kills)


@pytest.mark.long
def test_a_late_resume_costs_no_more(processes, tmp_path, report):
    """The first batch of step 100,000, against that of step 0, in new processes: their medians of
    three."""
    seconds = {0: [], 100_000: []}
    for turn in range(3):
        for first, each in seconds.items():
            record = tmp_path / f"{first}-{turn}"
            how = {
                "count": COUNT,
                "batch_size": BATCH,
                "first": first,
                "last": first + 1,
                "threads": 4,
            }
            assert processes.read(tmp_path, record=str(record), **how).wait() == 0
            each += lines_of(record)[0]
    early, late = map(statistics.median, seconds.values())
    assert late - early < 2.0
    report(8, f"first batch after {early:.2f} s at step 0, {late:.2f} s at step 100,000", 3)
