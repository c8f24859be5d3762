"""Where a study stands: a bar in a terminal, a line for each step elsewhere."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class StudyProgress:
    """Progress over the figures of a study, with the time left as the finished ones let expect.

    Args:
        title: of the study.
        total: figures that it has.
    """

    def __init__(self, title: str, total: int):
        self.total, self.finished, self.seconds, self.current = total, 0, [], ""
        self._terminal = sys.stdout.isatty()
        self._bar = Progress(TextColumn("{task.fields[count]}"), BarColumn(), TextColumn("{task.description}"), console=Console())
        self._task = self._bar.add_task(title, total=total, count=f"0/{total}")
        self.print(title)

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

    def already(self, count: int) -> None:
        """So many figures were there before."""
        self.finished = count
        if count:
            self.print(f"{count} of {self.total} figures are there")

    def begin(self, what: str) -> None:
        """The next figure."""
        self.current = what
        if not self._terminal:
            print(f"[{self.finished + 1}/{self.total}] {what}; {self._left(0.0)}", flush=True)

    def say(self, what: str, share: float) -> None:
        """What is done for the current figure, and the share of it that is."""
        if self._terminal:
            text = f"{self.current}: {what} {share:.0%}; {self._left(share)}"
            self._bar.update(self._task, completed=self.finished + share, description=text, count=f"{self.finished}/{self.total}")

    def end(self, seconds: float) -> None:
        """The current figure took so long."""
        self.finished += 1
        self.seconds.append(seconds)

    def _left(self, share: float) -> str:
        """Words on the time that is left. Figures that need no run of their own are quick, so the mean is over all alike."""
        if not self.seconds:
            return "time left: known after the first"
        left = (self.total - self.finished - share) * sum(self.seconds) / len(self.seconds)
        return f"about {left / 60:.0f} min left" if left >= 60 else f"about {left:.0f} s left"
