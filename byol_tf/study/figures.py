"""Bars of a study, with its spread, chance, the untrained network and the paper's figures."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from byol_tf.runs.plots import COLOURS, QUIET, STYLE, WIDTH, legend_below, save_figure
from byol_tf.study.results import CellResult, accuracy_name

_INK, _PAPER = "#333333", "#b00020"
_LEFT = 10.0
"""The paper's figures below it, in %, have their mark where a bar's figure is written otherwise."""
_UNTRAINED = {"linear": "untrained_probe_accuracy", "knn": "untrained_knn_accuracy"}
"""Protocol -> key of a run's result with the same of the network before its first step."""


@matplotlib.rc_context(STYLE)
def bars_figure(path: Path, title: str, results: Sequence[CellResult]) -> None:
    """Draws each cell's mean as a bar, its seeds as dots, and the paper's figure as a hollow mark.

    A group of bars is a row of the table, a colour a column. A single seed has the 95% interval
    from its test images. Chance is a line if it is the same for all cells, the untrained network a
    mark in each bar of a frozen encoder.

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
    figure, axis = plt.subplots(figsize=(WIDTH, 1.3 + 0.3 * len(shown) + 0.16 * len(rows)))
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
    axis.set_xlabel(f"{accuracy_name(shown)} (%)")
    axis.set_title(title, loc="left", parse_math=False)
    entries: dict[str, Patch | Line2D] = {}
    chances = {
        outcome.chance
        for result in shown
        for outcome in result.outcomes
        if outcome.chance is not None
    }
    if len(chances) == 1:
        look: dict[str, Any] = {"color": QUIET, "linestyle": ":", "linewidth": 1.2}
        axis.axvline(100.0 * chances.pop(), **look)
        entries["chance: always the most frequent class"] = Line2D([], [], **look)
    untrained = [_untrained(result) is not None for result in shown]
    if any(untrained):
        label = "the untrained network, by the run's own probe"
        if not all(untrained):
            label += " (bars without: not measured)"
        entries[label] = _untrained_mark()
    if len(columns) > 1:
        entries |= {
            column or measure or "": Patch(color=COLOURS[number % len(COLOURS)], alpha=0.55)
            for number, (column, measure) in enumerate(measures.items())
        }
    if any(result.std is not None for result in shown):
        entries["seeds, their mean ± standard deviation"] = Line2D([], [], color=_INK, marker=".")
    if any(result.cell.paper is not None for result in shown):
        entries["the paper's, on its own data"] = _mark()
    if any(result.std is None and result.interval is not None for result in shown):
        entries["95% interval, from the test images"] = Line2D([], [], color=_INK)
    if entries:
        legend_below(figure, list(entries.values()), list(entries))
    save_figure(figure, path)


def _bar(axis: Axes, y: float, result: CellResult, colour: str) -> None:
    axis.barh(
        y,
        result.mean or 0.0,
        color=colour,
        alpha=0.55,
        height=0.86,
        xerr=_error(result),
        ecolor=_INK,
        capsize=3,
    )
    if len(result.values) > 1:
        axis.plot(result.values, [y] * len(result.values), ".", color=_INK, markersize=4)
    paper = result.cell.paper
    beside_mark = paper is not None and paper < _LEFT
    axis.annotate(
        f"{result.mean:.1f}",
        (paper if beside_mark else 0, y),
        xytext=(8 if beside_mark else 4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    if (untrained := _untrained(result)) is not None:
        axis.add_line(_untrained_mark([untrained], [y]))
    if paper is not None:
        axis.add_line(_mark([paper], [y]))
        axis.update_datalim([(paper, y)])


def _error(result: CellResult) -> float | list[list[float]] | None:
    """Returns the length of a bar's whisker, or of both of its sides."""
    if result.std is not None or result.interval is None or result.mean is None:
        return result.std
    low, high = result.interval
    return [[result.mean - low], [high - result.mean]]


def _untrained(result: CellResult) -> float | None:
    """Returns the untrained network's accuracy in %, the mean over seeds, if it was measured."""
    key = _UNTRAINED.get(result.outcomes[0].planned.words[0], "")
    values = [outcome.result.get(key) for outcome in result.outcomes]
    measured = [100.0 * value for value in values if value is not None]
    return statistics.mean(measured) if measured else None


def _untrained_mark(x: Sequence[float] = (), y: Sequence[float] = ()) -> Line2D:
    return Line2D(x, y, linestyle="", marker="|", markersize=14, markeredgewidth=2.5, color=QUIET)


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
