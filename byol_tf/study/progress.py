"""Progress of a study: bars in a terminal, a line for each cell elsewhere."""

import sys
from collections import Counter
from dataclasses import dataclass
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from byol_tf.logs import time_left

_TRAINING_SHARE = 0.8
"""Share of a cell's bar that its training fills; the evaluation, which reports no progress, is the
rest."""


@dataclass
class _Running:
    trains: bool
    bar: TaskID
    share: float = 0.0


class StudyProgress:
    """Progress over the cells of a study, with the time left as estimated from the finished ones.

    Args:
        title: the study's title.
        total: number of cells, over all seeds.
        waiting: number of cells that are not done, by whether they need a run of their own; the
            others are quick.
        jobs: number of cells that are run at a time.
    """

    def __init__(self, title: str, total: int, waiting: Counter[bool], jobs: int = 1):
        self.total, self.begun, self.jobs = total, total - waiting.total(), jobs
        self._waiting, self._running = Counter(waiting), dict[str, _Running]()
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._terminal = sys.stdout.isatty()
        self._bars = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(20),
            TextColumn("{task.description}"),
            console=Console(),
        )
        self._task = self._bars.add_task("", total=total, count="")
        self._show()
        self.print(title)
        if self.begun:
            self.print(f"{self.begun} of {total} figures are there")

    def __enter__(self) -> Self:
        if self._terminal:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            self._bars.stop()

    def print(self, line: str) -> None:
        """Prints a line that stays above the bars."""
        if self._terminal:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)  # noqa: T201

    def begin(self, name: str, trains: bool) -> None:
        """Begins a cell, of another name than all that are in progress."""
        self.begun += 1
        self._waiting[trains] -= 1
        bar = self._bars.add_task(escape(name), total=1.0, count="")
        self._running[name] = _Running(trains, bar)
        self._show()
        if not self._terminal:
            self.print(f"[{self.begun}/{self.total}] {name}; {self._time_left()}")

    def update(self, name: str, activity: str, share: float | None) -> None:
        """Shows the progress of a cell.

        Args:
            name: as it was begun.
            activity: what is in progress: "training", or a protocol.
            share: the share of it that is done, from 0 to 1; None if that isn't known.
        """
        cell = self._running[name]
        if share is not None:
            cell.share = _TRAINING_SHARE * share
        elif cell.trains:
            cell.share = _TRAINING_SHARE
        percent = "" if share is None else f" {share:.0%}"
        description = escape(f"{name}: {activity}{percent}")
        self._bars.update(cell.bar, completed=cell.share, description=description)
        self._show()

    def end(self, name: str, seconds: float | None) -> None:
        """Ends a cell.

        Args:
            name: as it was begun.
            seconds: the time it took; None for a failed one, which tells nothing about the others.
        """
        cell = self._running.pop(name)
        if seconds is not None:
            self._seconds[cell.trains].append(seconds)
        self._bars.remove_task(cell.bar)
        self._show()

    def _show(self) -> None:
        """Shows the progress of all cells together."""
        finished = self.begun - len(self._running)
        shares = sum(cell.share for cell in self._running.values())
        self._bars.update(
            self._task,
            completed=finished + shares,
            count=f"{finished}/{self.total}",
            description=self._time_left(),
        )

    def _time_left(self) -> str:
        """Estimates the time left, in words; "" at the end."""
        if self.begun == self.total and not self._running:
            return ""
        means = {
            trains: sum(seconds) / len(seconds)
            for trains, seconds in self._seconds.items()
            if seconds
        }
        if not means:
            return "time left: known after the first"
        left = 0.0
        for trains in (True, False):
            running = [1.0 - cell.share for cell in self._running.values() if cell.trains == trains]
            cells = self._waiting[trains] + sum(running)
            left += cells * means.get(trains, means.get(not trains, 0.0))
        return time_left(left / self.jobs)
