"""The figures of a study: bars with spread and the paper's figure beside them; curves over epochs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.figures import save_figure

if TYPE_CHECKING:
    from byol_tf.study_report import Found

import matplotlib.pyplot as plt

_PANELS = (
    ("probe_accuracy", "linear probe (%)", 100.0),
    ("knn_accuracy", "nearest neighbours (%)", 100.0),
    ("projection_std", "spread of projections\n1: scattered, 0: collapsed", 1.0),
    ("effective_rank", "effective rank of representations", 1.0),
    ("loss", "loss", 1.0),
)


def bars_figure(path: Path, title: str, found: Sequence["Found"]) -> None:
    """Draws each cell's mean with its spread and its seeds as dots, and the paper's figure as a hollow mark.

    Args:
        path: the PNG to write.
        title: above it.
        found: cells over their seeds.
    """
    shown = [each for each in found if each.mean is not None]
    columns = list(dict.fromkeys(each.cell.column for each in shown))
    figure, axis = plt.subplots(figsize=(7.5, 1.2 + 0.42 * len(shown)), layout="constrained")
    for place, each in enumerate(shown):
        colour = f"C{columns.index(each.cell.column)}"
        axis.barh(place, each.mean, color=colour, alpha=0.55, height=0.7, xerr=each.spread, ecolor="#333333", capsize=3)
        axis.plot(each.values, [place] * len(each.values), ".", color="#333333", markersize=4)
        axis.annotate(f"{each.mean:.1f}", (0, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
        if each.cell.paper is not None:
            axis.plot(each.cell.paper, place, "D", markerfacecolor="white", markeredgecolor="#b00020", markersize=6)
    names = [f"{each.cell.row}, {each.cell.column}" if len(columns) > 1 else each.cell.row for each in shown]
    axis.set_yticks(range(len(shown)), names)
    axis.invert_yaxis()
    axis.set(xlabel="top-1 (%); diamonds: the paper's, on its own data")
    axis.set_title(title, loc="left", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def seed_curves_figure(path: Path, title: str, found: Sequence["Found"]) -> None:
    """Draws the measures of all runs over epochs: a colour a run, a line a seed.

    Args:
        path: the PNG to write.
        title: above it.
        found: cells over their seeds.
    """
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(18, 3.9), layout="constrained")
    seen: dict[str, str] = {}
    for each in found:
        for outcome in each.outcomes:
            name = outcome.planned.run_name
            if name in seen or not outcome.history:
                continue
            label = f"{each.cell.row}{f', {each.cell.column}' if each.cell.column else ''}"
            seen[name] = label
            colour = f"C{list(dict.fromkeys(seen.values())).index(label) % 10}"
            style = ("-", "--", ":")[list(dict.fromkeys(seen.values())).index(label) // 10 % 3]
            first = list(seen.values()).count(label) == 1
            for axis, (key, _, scale) in zip(axes, _PANELS, strict=True):
                points = [(row["epoch"], row[key] * scale) for row in outcome.history if key in row]
                if points:
                    axis.plot(*zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.2, label=label if first else None)
    for axis, (_, text, _) in zip(axes, _PANELS, strict=True):
        axis.set_title(text, fontsize=9)
        axis.set_xlabel("epoch")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    handles, labels = axes[-1].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    save_figure(figure, path)
