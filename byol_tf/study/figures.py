"""Bars of a study, with standard deviations and the paper's figures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from byol_tf.runs.plots import COLOURS, legend_below, save_figure
from byol_tf.study.results import CellResult

_INK, _PAPER = "#333333", "#b00020"


def bars_figure(path: Path, title: str, results: Sequence[CellResult]) -> None:
    """Draws each cell's mean as a bar, its seeds as dots, and the paper's figure as a hollow mark.

    A group of bars is a row of the table, a colour a column.

    Args:
        path: the PNG to write.
        title: above the figure.
        results: cells over their seeds; those without a value are skipped.
    """
    shown = [result for result in results if result.mean is not None]
    # A column without a name is called by its measure.
    measures = {result.cell.column: result.cell.measure for result in shown}
    columns = list(measures)
    rows = list(dict.fromkeys(result.cell.row for result in shown))
    figure, axis = plt.subplots(
        figsize=(8.0, 1.3 + 0.27 * len(shown) + 0.16 * len(rows)), layout="constrained"
    )
    y, ticks = 0.0, []
    for row in rows:
        group = [result for result in shown if result.cell.row == row]
        group.sort(key=lambda result: columns.index(result.cell.column))
        ticks.append(y + (len(group) - 1) / 2)
        for result in group:
            _bar(axis, y, result, COLOURS[columns.index(result.cell.column) % len(COLOURS)])
            y += 1.0
        y += 0.6
    axis.set_yticks(ticks, rows, parse_math=False)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(y - 0.9, -0.7)
    axis.set_xlim(left=0.0)
    axis.set_xlabel("top-1 (%)")
    axis.set_title(title, loc="left", fontsize=10, parse_math=False)
    axis.spines[["top", "right"]].set_visible(False)
    entries: dict[str, Patch | Line2D] = {}
    if len(columns) > 1:
        entries |= {
            column or measure or "": Patch(color=COLOURS[number % len(COLOURS)], alpha=0.55)
            for number, (column, measure) in enumerate(measures.items())
        }
    if any(result.std is not None for result in shown):
        entries["seeds, their mean ± standard deviation"] = Line2D([], [], color=_INK, marker=".")
    if any(result.cell.paper is not None for result in shown):
        entries["the paper's, on its own data"] = _mark()
    if entries:
        legend_below(figure, list(entries.values()), list(entries), 8)
    save_figure(figure, path)


def _bar(axis: Axes, y: float, result: CellResult, colour: str) -> None:
    axis.barh(
        y,
        result.mean or 0.0,
        color=colour,
        alpha=0.55,
        height=0.86,
        xerr=result.std,
        ecolor=_INK,
        capsize=3,
    )
    if len(result.values) > 1:
        axis.plot(result.values, [y] * len(result.values), ".", color=_INK, markersize=4)
    axis.annotate(
        f"{result.mean:.1f}",
        (0, y),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    if result.cell.paper is not None:
        axis.add_line(_mark([result.cell.paper], [y]))
        axis.update_datalim([(result.cell.paper, y)])


def _mark(x: Sequence[float] = (), y: Sequence[float] = ()) -> Line2D:
    """Returns the hollow mark of the paper's figures."""
    return Line2D(
        x,
        y,
        linestyle="",
        marker="D",
        markerfacecolor="white",
        markeredgecolor=_PAPER,
        markersize=6,
    )
