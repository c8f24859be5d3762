"""Results of a study: each cell of its table over the seeds, and each pre-trained run."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from byol_tf.runs.accuracy import Accuracy
from byol_tf.study.runner import Outcome
from byol_tf.study.schema import FIGURES, Cell


@dataclass(frozen=True)
class CellResult:
    """A cell over its seeds.

    Attributes:
        cell: the cell of the study.
        values: accuracies in %, one for each seed that is done.
        outcomes: of all seeds.
    """

    cell: Cell
    values: tuple[float, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def mean(self) -> float | None:
        """The mean over the seeds, or None if none is done."""
        return statistics.mean(self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """The standard deviation over the seeds (n - 1), or None with fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean's 95% interval in %, by its test images; None where their number isn't known."""
        counts = {outcome.test_images for outcome in self.outcomes if outcome.value is not None}
        if self.mean is None or len(counts) != 1:
            return None
        interval = Accuracy(self.mean / 100.0, counts.pop()).interval
        return None if interval is None else (100.0 * interval[0], 100.0 * interval[1])

    @property
    def text(self) -> str:
        """The result as the table has it: `71.3 ± 0.4`, `failed` or `not yet`.

        A single seed has its interval instead: `71.3 [69.8, 72.7]`.
        """
        if self.mean is None:
            return "failed" if any(outcome.error for outcome in self.outcomes) else "not yet"
        if self.std is not None:
            return f"{self.mean:.1f} ± {self.std:.1f}"
        if self.interval is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} [{self.interval[0]:.1f}, {self.interval[1]:.1f}]"


def accuracy_name(results: Sequence[CellResult]) -> str:
    """Returns the name of the accuracy that all cells have, or "accuracy" where they differ."""
    figures = {result.outcomes[0].planned.figure for result in results}
    return FIGURES[figures.pop()] if len(figures) == 1 else "accuracy"


def group_by_cell(outcomes: Sequence[Outcome]) -> list[CellResult]:
    """Groups outcomes by cell, in the order of the table, each with all its seeds."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cell = outcome.planned.cell
        groups.setdefault((cell.row, cell.column), []).append(outcome)
    return [
        CellResult(
            cell=group[0].planned.cell,
            values=tuple(outcome.value for outcome in group if outcome.value is not None),
            outcomes=tuple(group),
        )
        for group in groups.values()
    ]


def group_by_run(results: Sequence[CellResult]) -> dict[str, tuple[Outcome, ...]]:
    """Groups results by what was pre-trained, each run once.

    A run that several cells evaluate is labelled by what those cells share: its row; its column if
    its rows differ; or its recipe. Networks trained from scratch have no run and are skipped.

    Args:
        results: the cells of a study.

    Returns:
        A label that tells the run from the others -> an outcome of each seed.
    """
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for result in results:
        if result.outcomes[0].planned.words[0] != "supervised":
            run_names = tuple(outcome.planned.run_name for outcome in result.outcomes)
            groups.setdefault(run_names, []).append(result)
    runs_of_row: dict[str, int] = {}
    for group in groups.values():
        for row in {result.cell.row for result in group}:
            runs_of_row[row] = runs_of_row.get(row, 0) + 1
    labelled: dict[str, tuple[Outcome, ...]] = {}
    for run_names, group in groups.items():
        row, column = group[0].cell.row, group[0].cell.column
        candidates = [row] if runs_of_row[row] == 1 or not column else []
        if column and len({result.cell.row for result in group}) > 1:
            columns = {
                result.cell.column.removesuffix(f", {result.cell.measure}") for result in group
            }
            recipe = group[0].outcomes[0].planned.config.name
            candidates = [column if len(columns) == 1 else recipe]
        candidates += [f"{row}, {column}", f"{row}, {column}, {run_names[0]}"]
        labelled[next(label for label in candidates if label not in labelled)] = group[0].outcomes
    return labelled
