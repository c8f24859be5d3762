"""Figures of what an encoder makes of images: collapse with spectrum, neighbours, a map, the
probe's confusions."""

import warnings
from pathlib import Path

import numpy as np
from PIL import ImageColor
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from byol_tf.evaluate.knn import nearest_neighbours
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.plots import ONLINE, QUIET, SECOND, curve, plt, save_figure
from pipelines.sources import balanced_indices, resize_and_center_crop

_QUERIES, _NEIGHBOURS = 5, 8
_SIDE, _FRAME, _GAP = 96, 4, 6  # pixels of an image, of the frame around it, between two
_NAMED_CLASSES = 30  # of more, names at the axes would lie on each other
_LEAST_FOR_MAP, _MOST_FOR_MAP = 10, 500  # t-SNE of 500 takes a second of a core
_MAP_DIRECTIONS, _MAP_ITERATIONS = 50, 500


def collapse_figure(
    path: Path, rows: list[dict[str, float]], seen: RepresentationAnalysis | None
) -> None:
    """Draws the collapse measures over epochs, and the spectrum of the representations.

    Args:
        path: the PNG to write.
        rows: of the run's history.
        seen: for the spectrum; None where the images aren't to be had.
    """
    figure, axes = plt.subplots(
        1,
        2 if seen is None else 3,
        figsize=(8.5 if seen is None else 12.5, 3.7),
        layout="constrained",
    )
    curve(axes[0], rows, "projection_std", "spread (1: scattered, 0: collapsed)", ONLINE)
    curve(axes[0], rows, "projection_cosine", "cosine between images (1: collapsed)", SECOND)
    axes[0].set(title="projections of different images", ylim=(-0.1, 1.1), xlabel="epoch")
    axes[0].legend(fontsize=8, frameon=False)
    curve(axes[1], rows, "effective_rank", "effective rank", ONLINE)
    axes[1].set(
        title="effective rank of representations\n1: on a line", ylim=(0, None), xlabel="epoch"
    )
    if seen is not None:
        for name, colour in (("untrained", QUIET), ("trained", ONLINE)):
            shares = seen.spectra.get(name)
            if shares is not None and shares.any():
                rank = np.exp(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
                axes[2].plot(
                    np.arange(1, len(shares) + 1),
                    shares / shares[0],
                    color=colour,
                    label=f"{name}: effective rank {rank:.1f}",
                )
        axes[2].set(
            title="spectrum of representations",
            xlabel="direction",
            ylabel="singular value, of the largest",
            yscale="log",
            ylim=(1e-4, 1.5),
        )
        if axes[2].get_lines():
            axes[2].legend(fontsize=8, frameon=False)
        else:
            axes[2].text(
                0.5,
                0.5,
                "all representations\nare the same",
                ha="center",
                transform=axes[2].transAxes,
            )
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def neighbours_figure(path: Path, seen: RepresentationAnalysis, seed: int, start: str) -> None:
    """Draws some images with those most like them, by the untrained network above and by the
    trained one below.

    Args:
        path: the PNG to write.
        seen: the images.
        seed: decides which images are asked for.
        start: what the network was before its first step, in a word or two.
    """
    sides = [
        (name, features)
        for name, features in ((start, seen.untrained), ("trained", seen.trained))
        if features is not None
    ]
    count = len(seen.images)
    asked = np.linspace(0, count - 1, min(_QUERIES, count)).astype(int)
    if seen.labels is not None:
        asked = balanced_indices(seen.labels, _QUERIES, seed)
    cell = _SIDE + 2 * _FRAME
    sheet = np.full(
        (len(asked) * len(sides) * (cell + _GAP), (_NEIGHBOURS + 1) * (cell + _GAP), 3),
        255,
        np.uint8,
    )

    def put(row: int, column: int, index: int, frame: str) -> None:
        y, x = row * (cell + _GAP), column * (cell + _GAP)
        sheet[y : y + cell, x : x + cell] = ImageColor.getrgb(frame)
        sheet[y + _FRAME : y + cell - _FRAME, x + _FRAME : x + cell - _FRAME] = (
            resize_and_center_crop(seen.images[index], _SIDE)
        )

    neighbours = [
        nearest_neighbours(features[asked], features, _NEIGHBOURS, exclude=asked)[0]
        for _, features in sides
    ]
    for number, query in enumerate(map(int, asked)):
        for side, indices in enumerate(neighbours):
            row = number * len(sides) + side
            put(row, 0, query, "white")
            for column, index in enumerate(map(int, indices[number]), start=1):
                same = None if seen.labels is None else seen.labels[index] == seen.labels[query]
                put(row, column, index, "white" if same is None else ONLINE if same else SECOND)
    height, width = sheet.shape[:2]
    figure, axis = plt.subplots(
        figsize=(0.092 / 9.6 * width, 0.092 / 9.6 * height)
    )  # one picture on one axis: 90 axes take seconds
    axis.imshow(sheet, interpolation="none")
    names = [name for _ in asked for name, _ in sides]
    axis.set_xticks([])
    axis.set_yticks(
        [(row + 0.5) * (cell + _GAP) - _GAP / 2 for row in range(len(names))], names, fontsize=9
    )
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0)
    save_figure(figure, path)


def map_figure(path: Path, seen: RepresentationAnalysis, seed: int, start: str) -> bool:
    """Draws representations in two dimensions, coloured by class, of the untrained network and of
    the trained one. t-SNE of cosines.

    Args:
        path, seen, seed, start: as of `neighbours_figure`.

    Returns:
        Whether there was something to draw: labels, and ten images or more.
    """
    if seen.labels is None or len(seen.labels) < _LEAST_FOR_MAP:
        return False
    shown = balanced_indices(seen.labels, _MOST_FOR_MAP, seed)
    sides = [
        (name, features[shown])
        for name, features in ((start, seen.untrained), ("trained", seen.trained))
        if features is not None
    ]
    labels = seen.labels[shown]
    classes = np.unique(labels)
    figure, axes = plt.subplots(
        1, len(sides), figsize=(5.2 * len(sides), 4.8), squeeze=False, layout="constrained"
    )
    colours = plt.get_cmap("tab20" if len(classes) > 10 else "tab10")
    for axis, (name, features) in zip(axes[0], sides, strict=True):
        places = _placed(features, seed)
        for number, label in enumerate(classes):
            chosen = labels == label
            axis.scatter(
                *places[chosen].T,
                s=7,
                color=colours(number % colours.N),
                label=seen.class_names[label],
                linewidths=0,
            )
        axis.set(xticks=[], yticks=[], title=name)
        axis.spines[:].set(color="#cccccc")
    if len(classes) <= _NAMED_CLASSES:
        handles, names = axes[0, 0].get_legend_handles_labels()
        legend = figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=5,
            fontsize=8,
            frameon=False,
            markerscale=2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    _save_with_any_sign(figure, path)
    return True


def _placed(features: np.ndarray, seed: int) -> np.ndarray:
    """float `[n, 2]`."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
    _, _, axes = np.linalg.svd(directions - directions.mean(axis=0), full_matrices=False)
    perplexity = min(30.0, (len(directions) - 1) / 3)
    # From random places: those from a PCA aren't numbers where all representations are the same.
    method = TSNE(
        2, perplexity=perplexity, init="random", random_state=seed, max_iter=_MAP_ITERATIONS
    )
    with threadpool_limits(1):  # its threads wait for each other longer than they compute
        return method.fit_transform(directions @ axes[:_MAP_DIRECTIONS].T)


def confusion_figure(path: Path, seen: RepresentationAnalysis) -> None:
    """Draws what the linear probe takes the test images of each class for, as shares of the class.
    `seen` has labels."""
    shares = confusions(seen)
    size = len(shares)
    side = min(9.0, 3.2 + 0.24 * size)
    figure, axis = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    drawn = axis.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axis.set(xlabel="taken for", ylabel="is")
    if size <= _NAMED_CLASSES:
        axis.set_xticks(range(size), seen.class_names, fontsize=8, rotation=90)
        axis.set_yticks(range(size), seen.class_names, fontsize=8)
        for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            text.set_parse_math(False)
    if size <= 12:
        for row, column in np.ndindex(*shares.shape):
            if shares[row, column] >= 0.005:
                colour = "white" if shares[row, column] > 0.55 else "black"
                axis.text(
                    column,
                    row,
                    f"{shares[row, column]:.0%}",
                    ha="center",
                    va="center",
                    fontsize=7,
                    color=colour,
                )
    figure.colorbar(drawn, fraction=0.045, label="share of the class")
    _save_with_any_sign(figure, path)


def confusions(seen: RepresentationAnalysis) -> np.ndarray:
    """float64 `[classes, classes]`: of the test images of a class (row), the share that is taken
    for each (column)."""
    size = len(seen.class_names)
    counts = np.zeros((size, size))
    np.add.at(counts, (seen.actual, seen.predicted), 1.0)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)


def _save_with_any_sign(figure, path: Path) -> None:
    """Saves a figure with names of classes, which may have signs that the font hasn't."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        save_figure(figure, path)
