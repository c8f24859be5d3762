"""The figures of a study: bars with spread and the paper's figure beside them; curves over epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.figures import save_figure
from byol_tf.study_runs import Outcome

if TYPE_CHECKING:
    from byol_tf.study_report import Found

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_PANELS = (
    ("probe_accuracy", "linear probe (%)", 100.0),
    ("knn_accuracy", "nearest neighbours (%)", 100.0),
    ("projection_std", "spread of projections\n1: scattered, 0: collapsed", 1.0),
    ("effective_rank", "effective rank of representations", 1.0),
    ("loss", "loss", 1.0),
)
_COLOURS = ("#1f5fbf", "#d9662b", "#2a9d5c", "#8d4fb3", "#c2a11c", "#17a2b8", "#b5336c", "#6b6b6b")
"""Told apart by colour-blind people too, as far as eight can be."""
_STYLES = ("-", "--", ":", "-.")
_INK, _PAPER = "#333333", "#b00020"


def bars_figure(path: Path, title: str, found: Sequence["Found"]) -> None:
    """Draws each cell's mean with its spread and its seeds as dots, and the paper's figure as a hollow mark.

    A group of bars is a row of the table, a colour a column.

    Args:
        path: the PNG to write.
        title: above it.
        found: cells over their seeds.
    """
    shown = [each for each in found if each.mean is not None]
    columns = list(dict.fromkeys(each.cell.column for each in shown))
    rows = list(dict.fromkeys(each.cell.row for each in shown))
    figure, axis = plt.subplots(figsize=(8.0, 1.3 + 0.27 * len(shown) + 0.16 * len(rows)), layout="constrained")
    place, ticks = 0.0, []
    for row in rows:
        group = sorted((each for each in shown if each.cell.row == row), key=lambda each: columns.index(each.cell.column))
        ticks.append(place + (len(group) - 1) / 2)
        for each in group:
            _bar(axis, place, each, _COLOURS[columns.index(each.cell.column) % len(_COLOURS)])
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
        handles = [Patch(color=_COLOURS[number % len(_COLOURS)], alpha=0.55, label=name) for number, name in enumerate(columns)]
    if any(each.spread is not None for each in shown):
        handles.append(Line2D([], [], color=_INK, marker=".", label="seeds, their mean ± standard deviation"))
    if any(each.cell.paper is not None for each in shown):
        handles.append(_mark(label="the paper's, on its own data"))
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(figure, handles, 8), frameon=False, fontsize=8)
    save_figure(figure, path)


def _bar(axis, place: float, each: "Found", colour: str) -> None:
    axis.barh(place, each.mean, color=colour, alpha=0.55, height=0.86, xerr=each.spread, ecolor=_INK, capsize=3)
    if len(each.values) > 1:
        axis.plot(each.values, [place] * len(each.values), ".", color=_INK, markersize=4)
    axis.annotate(f"{each.mean:.1f}", (0, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    if each.cell.paper is not None:
        axis.add_line(_mark([each.cell.paper], [place]))
        axis.update_datalim([(each.cell.paper, place)])


def _mark(x: Sequence[float] = (), y: Sequence[float] = (), label: str | None = None) -> Line2D:
    return Line2D(x, y, linestyle="", marker="D", markerfacecolor="white", markeredgecolor=_PAPER, markersize=6, label=label)


def seed_curves_figure(path: Path, title: str, runs: dict[str, tuple[Outcome, ...]]) -> None:
    """Draws the measures of all runs over epochs: a colour and style a run, a line a seed.

    Args:
        path: the PNG to write.
        title: above it.
        runs: label -> an outcome of each seed.
    """
    drawn = {label: [each.history for each in outcomes if each.history] for label, outcomes in runs.items()}
    drawn = {label: histories for label, histories in drawn.items() if histories}
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(18, 3.9 + 0.07 * len(drawn)), layout="constrained")
    for number, (label, histories) in enumerate(drawn.items()):
        look = {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _STYLES[number // len(_COLOURS) % len(_STYLES)], "linewidth": 1.4}
        for history in histories:
            for axis, (key, _, scale) in zip(axes, _PANELS, strict=True):
                points = [(row["epoch"], row[key] * scale) for row in history if key in row]
                if points:
                    axis.plot(*zip(*points, strict=True), **look, marker="." if len(points) < 3 else None)
        axes[-1].plot([], [], **look, label=label)
    for axis, (key, text, _) in zip(axes, _PANELS, strict=True):
        axis.set_title(text, fontsize=9)
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.spines[["top", "right"]].set_visible(False)
        if key != "loss":  # from nothing, so that a difference looks as large as it is
            axis.set_ylim(bottom=0.0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    handles, _ = axes[-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=_legend_columns(figure, handles, 9), frameon=False, fontsize=9)
    save_figure(figure, path)


def _legend_columns(figure, handles: Sequence, size: float) -> int:
    """How many entries fit side by side: letters are about 0.6 of the font's size wide, a handle is as wide as some five."""
    letters = 5 + max(len(handle.get_label()) for handle in handles)
    return max(1, min(len(handles), int(figure.get_figwidth() * 72 / (0.6 * size * letters))))
