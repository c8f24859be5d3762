"""The bars of a study, with spread and the paper's figure beside them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from byol_tf.runs.plots import COLOURS, legend_columns, save_figure
from byol_tf.study.results import CellResult

_INK, _PAPER = "#333333", "#b00020"


def bars_figure(path: Path, title: str, found: Sequence[CellResult]) -> None:
    """Draws each cell's mean with its spread and its seeds as dots, and the paper's figure as a
    hollow mark.

    A group of bars is a row of the table, a colour a column.

    Args:
        path: the PNG to write.
        title: above it.
        found: cells over their seeds.
    """
    shown = [each for each in found if each.mean is not None]
    measures = {
        each.cell.column: each.cell.measure for each in shown
    }  # what a column is called that has no name
    columns = list(measures)
    rows = list(dict.fromkeys(each.cell.row for each in shown))
    figure, axis = plt.subplots(
        figsize=(8.0, 1.3 + 0.27 * len(shown) + 0.16 * len(rows)), layout="constrained"
    )
    place, ticks = 0.0, []
    for row in rows:
        group = sorted(
            (each for each in shown if each.cell.row == row),
            key=lambda each: columns.index(each.cell.column),
        )
        ticks.append(place + (len(group) - 1) / 2)
        for each in group:
            _bar(axis, place, each, COLOURS[columns.index(each.cell.column) % len(COLOURS)])
            place += 1.0
        place += 0.6
    axis.set_yticks(ticks, rows)
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(place - 0.9, -0.7)
    axis.set_xlim(left=0.0)
    axis.set_xlabel("top-1 (%)")
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    handles = []
    if len(columns) > 1:
        labels = [column or measures[column] for column in columns]
        handles = [
            Patch(color=COLOURS[number % len(COLOURS)], alpha=0.55, label=label)
            for number, label in enumerate(labels)
        ]
    if any(each.spread is not None for each in shown):
        handles.append(
            Line2D([], [], color=_INK, marker=".", label="seeds, their mean ± standard deviation")
        )
    if any(each.cell.paper is not None for each in shown):
        handles.append(_mark(label="the paper's, on its own data"))
    if handles:
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=legend_columns(figure, handles, 8),
            frameon=False,
            fontsize=8,
        )
    save_figure(figure, path)


def _bar(axis, place: float, each: CellResult, colour: str) -> None:
    axis.barh(
        place,
        each.mean,
        color=colour,
        alpha=0.55,
        height=0.86,
        xerr=each.spread,
        ecolor=_INK,
        capsize=3,
    )
    if len(each.values) > 1:
        axis.plot(each.values, [place] * len(each.values), ".", color=_INK, markersize=4)
    axis.annotate(
        f"{each.mean:.1f}",
        (0, place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
    if each.cell.paper is not None:
        axis.add_line(_mark([each.cell.paper], [place]))
        axis.update_datalim([(each.cell.paper, place)])


def _mark(x: Sequence[float] = (), y: Sequence[float] = (), label: str | None = None) -> Line2D:
    return Line2D(
        x,
        y,
        linestyle="",
        marker="D",
        markerfacecolor="white",
        markeredgecolor=_PAPER,
        markersize=6,
        label=label,
    )
