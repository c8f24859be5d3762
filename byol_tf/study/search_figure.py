"""Parallel coordinates of a search: its trials as lines over one axis a setting."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from byol_tf.runs.plots import ONLINE, QUIET, SECOND, STYLE, WIDTH, legend_below, save_figure
from byol_tf.study.schema import Domain, Range
from byol_tf.study.search import SearchPlan, TrialResult


@matplotlib.rc_context(STYLE)
def parallel_figure(
    path: Path,
    title: str,
    plan: SearchPlan,
    trials: Sequence[TrialResult],
) -> None:
    """Draws trials of a search as lines over one axis a setting, and the value as the last axis.

    The best is drawn in the accent colour, other complete trials the darker the higher their
    value, pruned ones thin and grey. Failed and running ones are skipped.

    Args:
        path: the PNG to write.
        title: above the figure.
        plan: of the search.
        trials: best first; those that are complete or pruned have a value.
    """
    shown = [(trial, trial.value) for trial in trials if trial.value is not None]
    values = [value for _, value in shown]
    space, factor = plan.search.space, 100.0 if plan.by_accuracy else 1.0
    low, high = min(values), max(values)
    figure, axis = plt.subplots(figsize=(WIDTH, 4.2))
    for position, domain in enumerate(space.values()):
        axis.axvline(position, color=QUIET, linewidth=0.8)
        for value in _ticks(domain):
            _tick(axis, position, _height(domain, value), _tick_text(value))
    axis.axvline(len(space), color=QUIET, linewidth=0.8)
    for value in {low, (low + high) / 2, high}:
        _tick(axis, len(space), _share(value, low, high), f"{factor * value:.1f}", "left")
    for trial, value in reversed(shown):
        heights = [_height(domain, trial.settings[key]) for key, domain in space.items()]
        share = _share(value, low, high)
        best, pruned = trial is shown[0][0], trial.state == "pruned"
        axis.plot(
            range(len(space) + 1),
            [*heights, share],
            color=SECOND if best else QUIET if pruned else plt.get_cmap("Blues")(0.3 + 0.6 * share),
            linewidth=2.4 if best else 0.8 if pruned else 1.4,
            alpha=0.6 if pruned else 1.0,
        )
    axis.set_xticks(
        range(len(space) + 1),
        [*(key.replace(".", ".\n") for key in space), "value (%)" if plan.by_accuracy else "value"],
        parse_math=False,
    )
    axis.tick_params(axis="x", length=0)
    axis.set_yticks([])
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.set_title(title, loc="left", parse_math=False)
    look = {"best": (SECOND, 2.4), "complete": (ONLINE, 1.4), "pruned": (QUIET, 0.8)}
    lines = [Line2D([], [], color=colour, linewidth=width) for colour, width in look.values()]
    legend_below(figure, lines, list(look))
    save_figure(figure, path)


def _tick(axis: Axes, position: float, height: float, text: str, side: str = "right") -> None:
    """Writes the value at a height of an axis, on its right; of the last one on its left."""
    offset = 4 if side == "right" else -4
    axis.annotate(
        text,
        (position, height),
        xytext=(offset, 0),
        textcoords="offset points",
        ha="left" if side == "right" else "right",
        va="center",
        fontsize=8,
        color="#333333",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5},
        zorder=3,
        parse_math=False,
    )


def _ticks(domain: Domain) -> Sequence[Any]:
    """Returns the values that are written at an axis."""
    if not isinstance(domain, Range):
        return domain
    low, high = domain.low, domain.high
    return low, math.sqrt(low * high) if domain.log else (low + high) / 2, high


def _height(domain: Domain, value: Any) -> float:
    """Returns where a value lies on its axis, from 0 to 1."""
    if not isinstance(domain, Range):
        return _share(list(domain).index(value), 0, len(domain) - 1)
    scale = math.log if domain.log else float
    return _share(scale(value), scale(domain.low), scale(domain.high))


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _tick_text(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else json.dumps(value)
