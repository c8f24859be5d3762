"""Progress of a study: a bar in a terminal, a line for each step elsewhere."""

import sys
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from byol_tf.logs import time_left

_TRAINING_SHARE = 0.8
"""Share of a cell's bar that its training fills; the evaluation, which reports no progress, is the
rest."""


class StudyProgress:
    """Progress over the cells of a study, with the time left as estimated from the finished ones.

    Args:
        title: the study's title.
        total: number of cells, over all seeds.
        needs_training: for each cell that is not done, in order, whether it needs a run of its own;
            the others are quick.
    """

    def __init__(self, title: str, total: int, needs_training: Sequence[bool]):
        self.total, self.current, self.share = total, "", 0.0
        self._needs_training, self._next = list(needs_training), 0
        self._seconds: dict[bool, list[float]] = {True: [], False: []}
        self._terminal = sys.stdout.isatty()
        self._bar = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=Console(),
        )
        self._task = self._bar.add_task(
            title, total=total, count=f"{self.finished}/{total}", completed=self.finished
        )
        self.print(title)
        if self.finished:
            self.print(f"{self.finished} of {total} figures are there")

    @property
    def finished(self) -> int:
        """Number of cells that are done."""
        return self.total - len(self._needs_training) + self._next

    def __enter__(self) -> Self:
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            self._bar.stop()

    def print(self, line: str) -> None:
        """Prints a line that stays above the bar."""
        if self._terminal:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)  # noqa: T201

    def begin(self, name: str) -> None:
        """Begins the next cell."""
        self.current, self.share = name, 0.0
        if not self._terminal:
            self.print(f"[{self.finished + 1}/{self.total}] {name}; {self._time_left()}")

    def update(self, activity: str, share: float | None) -> None:
        """Shows the progress of the current cell.

        Args:
            activity: what is in progress: "training", or a protocol.
            share: the share of it that is done, from 0 to 1; None if that isn't known.
        """
        if share is not None:
            self.share = _TRAINING_SHARE * share
        elif self._needs_training[self._next]:
            self.share = _TRAINING_SHARE
        if self._terminal:
            percent = "" if share is None else f" {share:.0%}"
            self._bar.update(
                self._task,
                completed=self.finished + self.share,
                description=f"{self.current}: {activity}{percent}; {self._time_left()}",
                count=f"{self.finished}/{self.total}",
            )

    def end(self, seconds: float | None) -> None:
        """Ends the current cell.

        Args:
            seconds: the time it took; None for a failed one, which tells nothing about the others.
        """
        if seconds is not None:
            self._seconds[self._needs_training[self._next]].append(seconds)
        self._next, self.share = self._next + 1, 0.0
        if self._terminal:
            self._bar.update(
                self._task, completed=self.finished, count=f"{self.finished}/{self.total}"
            )

    def _time_left(self) -> str:
        """Estimates the time left, in words."""
        means = {
            trains: sum(seconds) / len(seconds)
            for trains, seconds in self._seconds.items()
            if seconds
        }
        if not means:
            return "time left: known after the first"
        waiting = self._needs_training[self._next :]
        expected = [means.get(trains, means.get(not trains, 0.0)) for trains in waiting]
        left = sum(expected) - (self.share * expected[0] if expected else 0.0)
        return time_left(left)
