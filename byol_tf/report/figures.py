"""Figures of representations: collapse and spectrum, neighbours, map, the probe's confusions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import sklearn.metrics
from matplotlib.axes import Axes
from PIL import ImageColor
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from byol_tf.evaluate.knn import nearest_neighbours
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.plots import (
    ONLINE,
    QUIET,
    SECOND,
    STYLE,
    WIDTH,
    History,
    curve,
    plt,
    save_figure,
    set_legend_texts,
)
from pipelines.sources import balanced_indices, false_color, resize_and_center_crop

_QUERIES, _NEIGHBOURS = 5, 8
_SIDE, _FRAME, _GAP = 96, 4, 6  # pixels: of an image, of its frame, between two frames
_CELL = _SIDE + 2 * _FRAME
_MAX_NAMED_CLASSES = 30  # more names at the axes would overlap
_MAX_CLASSES_WITH_NUMBERS = 12
_MAX_MAP_IMAGES = 500  # t-SNE of 500 takes a second of a core
_MAP_DIRECTIONS, _MAP_ITERATIONS = 50, 500


@matplotlib.rc_context(STYLE)
def collapse_figure(path: Path, rows: History, analysis: RepresentationAnalysis | None) -> None:
    """Draws the collapse measures over epochs, and the spectrum of the representations.

    Args:
        path: of the PNG.
        rows: of the run's history.
        analysis: for the spectrum; None where images or weights aren't available.
    """
    figure, axes = plt.subplots(2, 2, figsize=(WIDTH, 5.4))
    std, cosine, rank, spectrum = axes.flat
    for axis, measure, title in (
        (std, "projection_std", "std of projections\n(1: scattered, 0: collapsed)"),
        (cosine, "projection_cosine", "cosine of different images' projections\n(1: collapsed)"),
        (rank, "effective_rank", "effective rank of representations\n(1: on a line)"),
    ):
        curve(axis, rows, measure, ONLINE)
        axis.set(title=title, xlabel="epoch")
    std.set_ylim(-0.1, 1.1)
    cosine.set_ylim(-0.1, 1.1)
    rank.set_ylim(bottom=0.0)
    if analysis is None:
        spectrum.set_axis_off()
    else:
        _draw_spectra(spectrum, analysis)
    save_figure(figure, path)


def _draw_spectra(axis: Axes, analysis: RepresentationAnalysis) -> None:
    for name, colour in (("untrained", QUIET), ("trained", ONLINE)):
        values = analysis.spectra.get(name)
        if values is not None and values.any():
            axis.plot(
                np.arange(1, len(values) + 1),
                values / values[0],
                color=colour,
                label=f"{name}: effective rank {analysis.effective_ranks[name]:.1f}",
            )
    axis.set(
        title="spectrum of representations\n(singular values, as fractions of the largest)",
        xlabel="direction",
        yscale="log",
        ylim=(1e-4, 1.5),
    )
    if axis.get_lines():
        axis.legend()
    else:
        text = "all representations\nare the same"
        axis.text(0.5, 0.5, text, ha="center", transform=axis.transAxes)


@matplotlib.rc_context(STYLE | {"figure.constrained_layout.use": False})
def neighbours_figure(path: Path, analysis: RepresentationAnalysis, seed: int, start: str) -> None:
    """Draws some images with their nearest neighbours, before and after training.

    Args:
        path: of the PNG.
        analysis: images and representations.
        seed: decides which images are the queries.
        start: name of the network before its first step.
    """
    queries = np.linspace(
        0, len(analysis.images) - 1, min(_QUERIES, len(analysis.images)), dtype=np.int64
    )
    if analysis.labels is not None:
        queries = balanced_indices(analysis.labels, _QUERIES, seed)
    networks = [
        (name, features)
        for name, features in ((start, analysis.untrained), ("trained", analysis.trained))
        if features is not None
    ]
    names = [name for _ in queries for name, _ in networks]
    step = _CELL + _GAP
    sheet = np.full((len(names) * step, (_NEIGHBOURS + 1) * step, 3), 255, np.uint8)
    rows = ((int(query), features) for query in queries for _, features in networks)
    for row, (query, features) in enumerate(rows):
        for column, (index, frame) in enumerate(_query_and_neighbours(analysis, query, features)):
            cell = sheet[row * step :, column * step :][:_CELL, :_CELL]
            cell[:] = ImageColor.getrgb(frame)
            cell[_FRAME:-_FRAME, _FRAME:-_FRAME] = resize_and_center_crop(
                false_color(analysis.images[index]), _SIDE
            )
    height, width = sheet.shape[:2]
    # One picture on one axis, as 90 axes take seconds.
    # The rows' names stand left of the picture, in the space that is left of a figure's width.
    scale = (WIDTH - 0.9) / width
    figure, axis = plt.subplots(figsize=(scale * width, scale * height))
    axis.imshow(sheet, interpolation="none")
    axis.set_xticks([])
    axis.set_yticks([(row + 0.5) * step - _GAP / 2 for row in range(len(names))], names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.subplots_adjust(0.0, 0.0, 1.0, 1.0)
    save_figure(figure, path)


def _query_and_neighbours(
    analysis: RepresentationAnalysis, query: int, features: np.ndarray
) -> Iterator[tuple[int, str]]:
    """Yields (index of an image, colour of its frame): the query, then its nearest neighbours."""
    yield query, "white"
    neighbours, _ = nearest_neighbours(
        features[[query]], features, _NEIGHBOURS, exclude=np.array([query])
    )
    for index in neighbours[0].tolist():
        if analysis.labels is None:
            yield index, "white"
        else:
            same_class = analysis.labels[index] == analysis.labels[query]
            yield index, ONLINE if same_class else SECOND


@matplotlib.rc_context(STYLE)
def map_figure(path: Path, analysis: RepresentationAnalysis, seed: int, start: str) -> None:
    """Draws representations in two dimensions, coloured by class, before and after training.

    The map is t-SNE (van der Maaten and Hinton 2008) of normalised representations.

    Args:
        path: of the PNG.
        analysis: of a run with labels.
        seed: of the sample and of t-SNE.
        start: name of the network before its first step.
    """
    all_labels = np.asarray(analysis.labels)
    shown = balanced_indices(all_labels, _MAX_MAP_IMAGES, seed)
    networks = [
        (name, features[shown])
        for name, features in ((start, analysis.untrained), ("trained", analysis.trained))
        if features is not None
    ]
    labels = all_labels[shown]
    classes = np.unique(labels)
    figure, axes = plt.subplots(
        1, len(networks), figsize=(WIDTH / 2 * len(networks), 4.8), squeeze=False
    )
    colours = plt.get_cmap("tab20" if len(classes) > 10 else "tab10")
    for axis, (name, features) in zip(axes[0], networks, strict=True):
        points = _t_sne(features, seed)
        dots = [
            axis.scatter(
                *points[labels == label].T, s=7, color=colours(number % colours.N), linewidths=0
            )
            for number, label in enumerate(classes)
        ]
        axis.set(xticks=[], yticks=[], title=name)
        axis.spines[:].set(color="#cccccc", visible=True)
    if len(classes) <= _MAX_NAMED_CLASSES:
        names = [analysis.class_names[label] for label in classes]
        legend = figure.legend(
            dots,
            [str(number) for number in range(len(names))],
            loc="outside lower center",
            ncols=5,
            markerscale=2,
        )
        set_legend_texts(legend, names)
    save_figure(figure, path)


def _t_sne(features: np.ndarray, seed: int) -> np.ndarray:
    """Maps features, float `[n, d]`, to two dimensions: float `[n, 2]`."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = (features / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
    _, _, axes = np.linalg.svd(directions - directions.mean(axis=0), full_matrices=False)
    perplexity = min(30.0, (len(directions) - 1) / 3)
    # From random points: those of a PCA are NaN where all representations are the same.
    method = TSNE(
        2, perplexity=perplexity, init="random", random_state=seed, max_iter=_MAP_ITERATIONS
    )
    with threadpool_limits(1):  # more threads wait for each other longer than they compute
        return method.fit_transform(directions @ axes[:_MAP_DIRECTIONS].T)


@matplotlib.rc_context(STYLE)
def confusion_figure(path: Path, analysis: RepresentationAnalysis) -> None:
    """Draws the confusion matrix of the linear probe.

    Args:
        path: of the PNG.
        analysis: of a run with labels.
    """
    matrix = confusion_matrix(analysis)
    size = len(matrix)
    side = min(WIDTH - 0.8, 3.2 + 0.24 * size)
    figure, axis = plt.subplots(figsize=(side + 0.8, side))
    image = axis.imshow(matrix, cmap="Blues", vmin=0.0, vmax=1.0)
    axis.set(xlabel="predicted class", ylabel="class")
    if size <= _MAX_NAMED_CLASSES:
        axis.set_xticks(range(size), analysis.class_names, rotation=90)
        axis.set_yticks(range(size), analysis.class_names)
        for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            text.set_parse_math(False)
    if size <= _MAX_CLASSES_WITH_NUMBERS:
        for row, column in np.ndindex(*matrix.shape):
            fraction = matrix[row, column]
            if fraction >= 0.005:
                colour = "white" if fraction > 0.55 else "black"
                centred: dict[str, Any] = {"ha": "center", "va": "center"}
                axis.text(column, row, f"{fraction:.0%}", **centred, fontsize=9, color=colour)
    figure.colorbar(image, fraction=0.045, label="fraction of the class")
    save_figure(figure, path)


def confusion_matrix(analysis: RepresentationAnalysis) -> np.ndarray:
    """Returns the confusion matrix of the linear probe, normalised over the predictions.

    Args:
        analysis: of a run with labels.

    Returns:
        float64 `[classes, classes]`: of the images of a class (row), the fraction that the
        probe predicts each class (column) for. A row without images is 0.
    """
    classes = np.arange(len(analysis.class_names))
    return sklearn.metrics.confusion_matrix(
        analysis.test_labels, analysis.predicted_labels, labels=classes, normalize="true"
    )
