"""The measures of several runs over epochs, side by side: of a study, or of any runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from byol_tf.figures import plt, save_figure

History = Sequence[dict[str, float]]
"""The rows of a run (see `callbacks/history.py`)."""

_PANELS = (
    ("probe_accuracy", "linear probe (%)", 100.0),
    ("knn_accuracy", "nearest neighbours (%)", 100.0),
    ("projection_std", "spread of projections\n1: scattered, 0: collapsed", 1.0),
    ("effective_rank", "effective rank of representations", 1.0),
    ("loss", "loss", 1.0),
)
COLOURS = ("#1f5fbf", "#d9662b", "#2a9d5c", "#8d4fb3", "#c2a11c", "#17a2b8", "#b5336c", "#6b6b6b")
"""Told apart by colour-blind people too, as far as eight can be."""
_STYLES = ("-", "--", ":", "-.")


def setting_curves_figure(path: Path, title: str, settings: Mapping[str, Sequence[History]]) -> None:
    """Draws the measures of runs over epochs: a colour and style a setting, a line a seed.

    Args:
        path: the PNG to write.
        title: above it.
        settings: label -> the history of each seed.
    """
    drawn = {label: [history for history in histories if history] for label, histories in settings.items()}
    drawn = {label: histories for label, histories in drawn.items() if histories}
    figure, axes = plt.subplots(1, len(_PANELS), figsize=(18, 3.9 + 0.07 * len(drawn)), layout="constrained")
    for number, (label, histories) in enumerate(drawn.items()):
        look = {"color": COLOURS[number % len(COLOURS)], "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)], "linewidth": 1.4}
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
        figure.legend(handles=handles, loc="outside lower center", ncols=legend_columns(figure, handles, 9), frameon=False, fontsize=9)
    save_figure(figure, path)


def legend_columns(figure, handles: Sequence, size: float) -> int:
    """How many entries fit side by side: letters are about 0.6 of the font's size wide, a handle is as wide as some five."""
    letters = 5 + max(len(handle.get_label()) for handle in handles)
    return max(1, min(len(handles), int(figure.get_figwidth() * 72 / (0.6 * size * letters))))
