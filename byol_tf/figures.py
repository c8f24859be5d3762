"""Figures of a run: the views before it, the curves after it."""

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from byol_tf.run_folder import write_atomically

ONLINE, SECOND, QUIET = "#1f5fbf", "#d9662b", "#8a8a8a"
"""Colours of a run's figures: what it is about first, what stands beside it, what lies in the background."""


def save_figure(figure, path: Path) -> None:
    """Writes a figure as a PNG, makes its folder if needed, and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    figure.savefig(png, dpi=130, bbox_inches="tight", facecolor="white", format="png")
    plt.close(figure)
    write_atomically(path, png.getvalue())


def views_figure(path: Path, originals: list[np.ndarray], boxes: np.ndarray, views: np.ndarray) -> None:
    """Draws images with the crop boxes of their two views, and the views below them.

    Args:
        path: the PNG to write.
        originals: n images, uint8 `[H, W, 3]`.
        boxes: `[2, n, 4]`: y1, x1, y2, x2 as fractions of the image, for each view.
        views: `[2, n, size, size, 3]` in [0, 1].
    """
    count = len(originals)
    figure, axes = plt.subplots(3, count, figsize=(1.35 * count, 4.3), squeeze=False)
    for column, image in enumerate(originals):
        axes[0, column].imshow(image)
        height, width = image.shape[:2]
        for view, colour in enumerate((ONLINE, SECOND)):
            y1, x1, y2, x2 = boxes[view, column]
            corner = (x1 * width - 0.5, y1 * height - 0.5)
            axes[0, column].add_patch(Rectangle(corner, (x2 - x1) * width, (y2 - y1) * height, fill=False, edgecolor=colour, linewidth=2))
            axes[view + 1, column].imshow(views[view, column])
            for spine in axes[view + 1, column].spines.values():
                spine.set(edgecolor=colour, linewidth=2)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for row, title in enumerate(("image", "view 1", "view 2")):
        axes[row, 0].set_ylabel(title)
    figure.tight_layout(pad=0.4)
    save_figure(figure, path)


def curves_figure(path: Path, rows: list[dict[str, float]], title: str) -> None:
    """Draws accuracy, loss, collapse measures and schedules over epochs.

    Args:
        path: the PNG to write.
        rows: one a epoch, row 0 being the untrained network (see `callbacks/history.py`).
        title: above the figure.
    """
    figure, axes = plt.subplots(1, 4, figsize=(13.5, 3.9), layout="constrained")
    accuracy, loss, collapse, schedules = axes
    curve(accuracy, rows, "probe_accuracy", "linear probe", ONLINE, 100.0)
    curve(accuracy, rows, "knn_accuracy", "nearest neighbours", SECOND, 100.0)
    for name, colour in (("probe_accuracy", ONLINE), ("knn_accuracy", SECOND)):
        if rows and name in rows[0]:
            accuracy.axhline(rows[0][name] * 100.0, color=colour, linestyle=":", linewidth=1)
    accuracy.set(title="accuracy on frozen features (%)\ndotted: untrained")
    curve(loss, rows, "loss", "loss", ONLINE)
    loss.set(title="loss")
    curve(collapse, rows, "projection_std", "spread (1: scattered, 0: collapsed)", ONLINE)
    curve(collapse, rows, "projection_cosine", "cosine between images (1: collapsed)", SECOND)
    collapse.set(title="projections of different images", ylim=(-0.1, 1.15))
    rank = collapse.twinx()
    curve(rank, rows, "effective_rank", "effective rank (right)", QUIET)
    rank.set(ylim=(0, None))
    curve(schedules, rows, "tau", "tau", ONLINE)
    rate = schedules.twinx()
    curve(rate, rows, "learning_rate", "learning rate (right)", SECOND)
    schedules.set(title="schedules")
    for axis, twin in ((accuracy, None), (loss, None), (collapse, rank), (schedules, rate)):
        axis.set_xlabel("epoch")
        axis.spines[["top"] if twin is not None else ["top", "right"]].set_visible(False)
        lines = [*axis.get_lines(), *(twin.get_lines() if twin is not None else [])]
        lines = [line for line in lines if not line.get_label().startswith("_")]
        if len(lines) > 1:
            axis.legend(
                lines, [line.get_label() for line in lines], fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18)
            )
        if twin is not None:
            twin.spines[["top"]].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12)
    save_figure(figure, path)


def curve(axis, rows: list[dict[str, float]], name: str, label: str, colour: str, scale: float = 1.0) -> None:
    """Draws a column of a history over its epochs, where the epochs have it."""
    points = [(row["epoch"], row[name] * scale) for row in rows if name in row]
    if points:
        axis.plot(*zip(*points, strict=True), color=colour, label=label, marker="." if len(points) < 60 else None)
