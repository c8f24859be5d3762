"""Figures of runs: sample views, and curves of one run or of several settings."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from byol_tf.runs.accuracy import Accuracy
from byol_tf.runs.files import write_atomically
from pipelines.sources import false_color
from pipelines.sources.pixels import stretch_limits, white

matplotlib.use("Agg")  # needs no display

ONLINE, SECOND, QUIET = "#1f5fbf", "#d9662b", "#8a8a8a"
"""Colours of a run's figures: the subject, what it is compared with, and the background."""
COLOURS = ("#1f5fbf", "#d9662b", "#2a9d5c", "#8d4fb3", "#c2a11c", "#17a2b8", "#b5336c", "#6b6b6b")
"""Colours of settings, chosen to differ for colour-blind readers too, as far as eight can."""
_STYLES = ("-", "--", ":", "-.")
WIDTH = 8.9
"""Width of a figure in inches, at which its letters are as large as those of the report."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
}
"""Of all figures, as `matplotlib.rc_context(STYLE)`."""

History = Sequence[dict[str, float]]
"""Rows of a run, one an epoch, that of the untrained network first (see `folder.read_history`)."""

_PROBE = ("probe_accuracy", "linear probe (%)", 100.0)
_KNN = ("knn_accuracy", "nearest neighbours (%)", 100.0)
_STD = ("projection_std", "std of projections\n(1: scattered, 0: collapsed)", 1.0)
_RANK = ("effective_rank", "effective rank of representations", 1.0)
_LOSS = ("loss", "loss", 1.0)
_PANELS = (_PROBE, _KNN, _STD, _RANK, _LOSS)
"""Column of a history, title and factor of each panel of `setting_curves_figure`."""
TUNING_PANELS = (
    ("accuracy", "accuracy of the training images (%)", 100.0),
    ("loss", "loss of the training images", 1.0),
)
"""The same for the `curve.csv` of an evaluation that trains the network."""
_RUN_PANELS = (
    *(_PROBE, _KNN, _LOSS, _STD),
    ("learning_rate", "learning rate", 1.0),
    ("tau", "tau", 1.0),
)
"""The same of `curves_figure`."""
_LEGEND_SIZE = 9
"""Size of the font of legends below figures, in points."""


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, makes its folder if needed, and closes it.

    Args:
        figure: closed afterwards.
        path: of the PNG.

    Raises:
        OSError: if it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack a character in the name of a file or of a class.
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(png, dpi=130, bbox_inches="tight", facecolor="white", format="png")
    plt.close(figure)
    write_atomically(path, png.getvalue())


@matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False})
def views_figure(
    path: Path, originals: list[np.ndarray], boxes: np.ndarray, views: np.ndarray
) -> None:
    """Draws images with the crop boxes of their two views, and the views below them.

    Args:
        path: of the PNG.
        originals: n images `[H, W, channels]`, uint8 or uint16.
        boxes: float `[2, n, 4]`: y1, x1, y2, x2 as fractions of the image, for each view.
        views: float `[2, n, size, size, channels]`, values from 0 to 1.
    """
    count = len(originals)
    width = WIDTH / 8 * count  # eight of them fill the report
    figure, axes = plt.subplots(3, count, figsize=(width, 3.9), squeeze=False)
    title = "Each image and two random views of it, cropped at the frames"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    for column, image in enumerate(originals):
        axes[0, column].imshow(false_color(image))
        height, width = image.shape[:2]
        for view, colour in enumerate((ONLINE, SECOND)):
            y1, x1, y2, x2 = boxes[view, column]
            corner = (x1 * width - 0.5, y1 * height - 0.5)
            axes[0, column].add_patch(
                Rectangle(
                    corner,
                    (x2 - x1) * width,
                    (y2 - y1) * height,
                    fill=False,
                    edgecolor=colour,
                    linewidth=2,
                )
            )
            axes[view + 1, column].imshow(_view_picture(views[view, column], image))
            for spine in axes[view + 1, column].spines.values():
                spine.set(edgecolor=colour, linewidth=2)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[["top", "right"]].set_visible(True)
    for row, title in enumerate(("image", "view 1", "view 2")):
        axes[row, 0].set_ylabel(title)
    figure.tight_layout(pad=0.4)
    save_figure(figure, path)


def _view_picture(view: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Returns a view in the colours in which `false_color` shows the image that it is of."""
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return view
    low, high = stretch_limits(image)
    return false_color(view, (low / white(image.dtype), high / white(image.dtype)))


@matplotlib.rc_context(STYLE)
def curves_figure(
    path: Path,
    rows: History,
    title: str,
    start: str = "untrained",
    test_images: int | None = None,
    chance: float | None = None,
    exported_epoch: int | None = None,
) -> None:
    """Draws accuracy, loss, collapse and schedules of a run over its epochs, one to a panel.

    Args:
        path: of the PNG.
        rows: of the run's history.
        title: text above the figure.
        start: name of the network before its first step.
        test_images: number of images of the accuracies, for their 95% interval; None draws none.
        chance: accuracy of always predicting the most frequent class, if known.
        exported_epoch: of the exported encoder; marked if it isn't the last one.
    """
    figure, axes = plt.subplots(2, 3, figsize=(WIDTH, 5.2))
    for axis, (key, text, scale) in zip(axes.flat, _RUN_PANELS, strict=True):
        curve(axis, rows, key, ONLINE, scale)
        axis.set_title(text)
        if key.endswith("_accuracy"):
            _accuracy_marks(axis, rows, key, start, test_images, chance)
        if exported_epoch is not None and exported_epoch != rows[-1]["epoch"]:
            axis.axvline(exported_epoch, color=QUIET, linestyle="--", linewidth=1)
            axis.annotate(
                "exported",
                (exported_epoch, 0.02),
                xycoords=("data", "axes fraction"),
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=9,
                color=QUIET,
            )
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    save_figure(figure, path)


def _accuracy_marks(
    axis: Axes, rows: History, key: str, start: str, test_images: int | None, chance: float | None
) -> None:
    """Adds the intervals of an accuracy, and lines for chance and for the network at its start."""
    intervals = [
        (row["epoch"], interval)
        for row in rows
        if key in row and (interval := Accuracy(row[key], test_images).interval) is not None
    ]
    if intervals:
        epochs, ends = zip(*intervals, strict=True)
        low, high = 100.0 * np.array(ends).T
        axis.fill_between(epochs, low, high, color=ONLINE, alpha=0.18, linewidth=0)
    before = rows[0].get(key) if rows else None
    for value, name, side in ((before, start, "bottom"), (chance, "chance", "top")):
        if value is not None:
            axis.axhline(100.0 * value, color=QUIET, linestyle=":", linewidth=1)
            place: dict[str, Any] = {
                "xycoords": ("axes fraction", "data"),
                "ha": "right",
                "va": side,
            }
            axis.annotate(name, (1.0, 100.0 * value), **place, fontsize=9, color=QUIET)
    axis.set_ylim(bottom=0.0)


def curve(axis: Axes, rows: History, name: str, colour: str, scale: float = 1.0) -> None:
    """Draws a column of a history over the epochs in which it was measured.

    Args:
        axis: to draw on.
        rows: of the history.
        name: of the column.
        colour: of the line.
        scale: factor of the values.
    """
    points = [(row["epoch"], row[name] * scale) for row in rows if name in row]
    if points:
        axis.plot(
            *zip(*points, strict=True), color=colour, marker="." if len(points) < 60 else None
        )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


@matplotlib.rc_context(STYLE)
def setting_curves_figure(
    path: Path,
    title: str,
    settings: Mapping[str, Sequence[History]],
    panels: Sequence[tuple[str, str, float]] = _PANELS,
) -> None:
    """Draws measures over epochs: a colour and style a setting, a line a seed.

    Args:
        path: of the PNG.
        title: text above the figure.
        settings: label -> the history of each seed.
        panels: column of a history, title and factor of each panel.
    """
    drawn = {
        label: [history for history in histories if history]
        for label, histories in settings.items()
    }
    drawn = {label: histories for label, histories in drawn.items() if histories}
    lines = math.ceil(len(panels) / 3)
    size = (WIDTH, 2.6 * lines + 0.1 * len(drawn))
    figure, grid = plt.subplots(lines, min(len(panels), 3), figsize=size, squeeze=False)
    axes = list(grid.flat[: len(panels)])
    for unused in grid.flat[len(panels) :]:
        figure.delaxes(unused)
    handles: list[Artist] = []
    for number, histories in enumerate(drawn.values()):
        look: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "linestyle": _STYLES[number // len(COLOURS) % len(_STYLES)],
            "linewidth": 1.4,
        }
        for history in histories:
            for axis, (key, _, scale) in zip(axes, panels, strict=True):
                points = [(row["epoch"], row[key] * scale) for row in history if key in row]
                if points:
                    axis.plot(
                        *zip(*points, strict=True), **look, marker="." if len(points) < 3 else None
                    )
        handles.append(Line2D([], [], **look))
    for axis, (key, text, _) in zip(axes, panels, strict=True):
        axis.set_title(text)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key != "loss":  # from 0, so that a difference looks as large as it is
            axis.set_ylim(bottom=0.0)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    if handles:
        legend_below(figure, handles, list(drawn))
    save_figure(figure, path)


def legend_below(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Draws a legend below a figure, with as many entries side by side as fit.

    Labels are shown as they are, though they may have dollars or begin with an underscore.

    Args:
        figure: that the legend is below.
        handles: of the entries.
        labels: of the entries.
    """
    # A letter is about 0.6 of the font's size wide, a line's sample as wide as five of them.
    letters = 5 + max(map(len, labels))
    fitting = int(figure.get_figwidth() * 72 / (0.6 * _LEGEND_SIZE * letters))
    columns = max(1, min(len(handles), fitting))
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(labels))],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=_LEGEND_SIZE,
    )
    set_legend_texts(legend, labels)


def set_legend_texts(legend: Legend, labels: Sequence[str]) -> None:
    """Sets the texts of a legend as they are.

    Given as labels, one that begins with an underscore would be missing in some versions of
    matplotlib, and dollars would be mathematics.

    Args:
        legend: with as many entries.
        labels: of its entries.
    """
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
