"""What a study found in each cell of its table, over seeds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from byol_tf.study.runner import Outcome
from byol_tf.study.schema import Cell


@dataclass(frozen=True)
class CellResult:
    """A cell over its seeds.

    Attributes:
        cell: of the study.
        values: top-1 in %, one a seed that is done.
        outcomes: of all seeds.
    """

    cell: Cell
    values: tuple[float, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def mean(self) -> float | None:
        """Over the seeds; None without any."""
        return statistics.mean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """`71.3 ± 0.4`, or what is missing."""
        if self.mean is None:
            return "failed" if any(outcome.error for outcome in self.outcomes) else "not yet"
        return f"{self.mean:.1f}" + (f" ± {self.spread:.1f}" if self.spread is not None else "")


def by_cell(outcomes: Sequence[Outcome]) -> list[CellResult]:
    """The cells in their order, each with all its seeds."""
    cells: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        cells.setdefault((outcome.planned.cell.row, outcome.planned.cell.column), []).append(
            outcome
        )
    return [
        CellResult(
            group[0].planned.cell,
            tuple(each.value for each in group if each.value is not None),
            tuple(group),
        )
        for group in cells.values()
    ]


def by_run(found: Sequence[CellResult]) -> dict[str, tuple[Outcome, ...]]:
    """What was pre-trained, each once, over its seeds: a label that tells it from the others, and
    an outcome of each seed.

    A run that several cells judge is named by what those cells share: its row, its column where its
    rows differ, or its recipe.
    """
    groups: dict[tuple[str, ...], list[CellResult]] = {}
    for each in found:
        if (
            each.outcomes[0].planned.words[0] != "supervised"
        ):  # it judges a network that no run has trained
            groups.setdefault(
                tuple(outcome.planned.run_name for outcome in each.outcomes), []
            ).append(each)
    rows = [
        row for group in groups.values() for row in dict.fromkeys(each.cell.row for each in group)
    ]
    labelled: dict[str, tuple[Outcome, ...]] = {}
    for names, group in groups.items():
        row, column = group[0].cell.row, group[0].cell.column
        candidates = [row] if rows.count(row) == 1 or not column else []
        if len({each.cell.row for each in group}) > 1 and column:
            columns = {each.cell.column.removesuffix(f", {each.cell.measure}") for each in group}
            candidates = [column if len(columns) == 1 else group[0].outcomes[0].planned.config.name]
        candidates += [f"{row}, {column}", f"{row}, {column}, {names[0]}"]
        labelled[next(label for label in candidates if label not in labelled)] = group[0].outcomes
    return labelled
