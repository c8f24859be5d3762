"""Where a study stands: a bar in a terminal, a line for each step elsewhere."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_TRAINING_SHARE = 0.8
"""Of a figure with a run of its own, what the bar shows for the training; the rest is judging, of
which no share is known."""


class StudyProgress:
    """Progress over the figures of a study, with the time left as the finished ones let expect.

    Args:
        title: of the study.
        total: figures that it has.
        trains: for each figure that is waiting, in their order, whether it needs a run of its own:
            those that don't are quick.
    """

    def __init__(self, title: str, total: int, trains: Sequence[bool]):
        self.total, self.current, self.share = total, "", 0.0
        self._trains, self._next = list(trains), 0
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
        """Figures that are there."""
        return self.total - len(self._trains) + self._next

    def __enter__(self):
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(self, *error):
        if self._terminal:
            self._bar.stop()

    def print(self, line: str) -> None:
        """A line that stays."""
        if self._terminal:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, flush=True)

    def begin(self, what: str) -> None:
        """The next figure."""
        self.current, self.share = what, 0.0
        if not self._terminal:
            print(f"[{self.finished + 1}/{self.total}] {what}; {self._left()}", flush=True)

    def say(self, what: str, share: float | None) -> None:
        """What is done for the current figure, and the share of it that is; None if that is not
        known."""
        if share is not None:
            self.share = _TRAINING_SHARE * share
        elif self._trains[self._next]:
            self.share = _TRAINING_SHARE
        if self._terminal:
            text = (
                f"{self.current}: {what}{'' if share is None else f' {share:.0%}'}; {self._left()}"
            )
            self._bar.update(
                self._task,
                completed=self.finished + self.share,
                description=text,
                count=f"{self.finished}/{self.total}",
            )

    def end(self, seconds: float | None) -> None:
        """The current figure took so long; None for one that failed, from which nothing is to be
        expected of others."""
        if seconds is not None:
            self._seconds[self._trains[self._next]].append(seconds)
        self._next, self.share = self._next + 1, 0.0
        if self._terminal:
            self._bar.update(
                self._task, completed=self.finished, count=f"{self.finished}/{self.total}"
            )

    def _left(self) -> str:
        """Words on the time that is left."""
        known = {
            kind: sum(seconds) / len(seconds) for kind, seconds in self._seconds.items() if seconds
        }
        if not known:
            return "time left: known after the first"
        expected = [known.get(kind, known.get(not kind)) for kind in self._trains[self._next :]]
        left = sum(expected) - (self.share * expected[0] if expected else 0.0)
        return (
            f"about {left / 3600:.1f} h left"
            if left >= 5400
            else f"about {left / 60:.0f} min left"
            if left >= 60
            else f"about {left:.0f} s left"
        )
