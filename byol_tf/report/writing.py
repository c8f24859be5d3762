"""Writes a run's report: its figures as PNGs, and the page."""

import dataclasses

import numpy as np

from byol_tf.logs import counted
from byol_tf.report.figures import (
    collapse_figure,
    confusion_figure,
    confusion_matrix,
    map_figure,
    neighbours_figure,
)
from byol_tf.report.html import ClassConfusion, Picture, report_page
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.files import check_no_link, write_atomically
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts

_NO_LABELS = "there are no labelled images"
_NOT_DRAWN = "the run has drawn none"
_NAMED_CONFUSIONS = 5
_MAP_IMAGES, _IMAGES_PER_CLASS = 50, 10
"""Fewest images of a map, and fewest test images of a class on average for a confusion matrix."""


def write_report(
    facts: RunFacts, folder: RunFolder, analysis: RepresentationAnalysis | None, missing: str = ""
) -> None:
    """Draws a run's figures into `figures/` and writes `report.html`.

    Args:
        facts: of the run.
        folder: of the run.
        analysis: its representations; None where images or weights aren't available.
        missing: why they aren't, as a clause.

    Raises:
        OSError: if a file can't be written.
    """
    check_no_link(folder.figures)
    if analysis is not None and analysis.test_labels is not None and facts.test_images is None:
        facts = dataclasses.replace(facts, test_images=len(analysis.test_labels))
    drawn = _draw_figures(facts, folder, analysis)
    confusions = [] if analysis is None or "confusion" not in drawn else _top_confusions(analysis)
    page = report_page(facts, _pictures(facts, folder, analysis, missing, drawn), confusions)
    write_atomically(folder.report, page)


def _draw_figures(
    facts: RunFacts, folder: RunFolder, analysis: RepresentationAnalysis | None
) -> set[str]:
    """Draws the figures of representations; returns the names of those that could be drawn."""
    figures, seed, start = folder.figures, facts.config.seed, facts.start
    collapse_figure(figures / "collapse.png", facts.rows, analysis)
    drawn = {"collapse"}
    if analysis is not None:
        neighbours_figure(figures / "neighbours.png", analysis, seed, start)
        drawn.add("neighbours")
        if _too_few_for_map(facts, analysis) == "":
            map_figure(figures / "map.png", analysis, seed, start)
            drawn.add("map")
        if _too_few_for_confusions(facts, analysis) == "":
            confusion_figure(figures / "confusion.png", analysis)
            drawn.add("confusion")
    return drawn


def _too_few_for_map(facts: RunFacts, analysis: RepresentationAnalysis) -> str:
    """Returns why there is no map, or "" if there is one."""
    if analysis.labels is None:
        return _NO_LABELS
    if len(analysis.labels) < _MAP_IMAGES:
        return f"{counted(len(analysis.labels), facts.probe_image)} show nothing there"
    return ""


def _too_few_for_confusions(facts: RunFacts, analysis: RepresentationAnalysis) -> str:
    """Returns why there are no confusions, or "" if there are."""
    if analysis.test_labels is None:
        return _NO_LABELS
    images, classes = len(analysis.test_labels), len(analysis.class_names)
    if images < _IMAGES_PER_CLASS * classes:
        counts = f"{counted(images, facts.probe_image)} of {classes} classes"
        return f"{counts} are too few to read one from"
    return ""


def _pictures(
    facts: RunFacts,
    folder: RunFolder,
    analysis: RepresentationAnalysis | None,
    missing: str,
    drawn: set[str],
) -> list[Picture]:
    """Returns the pictures of the page in reading order.

    Those of representations are shown only if they have just been drawn, as a file may be left
    from an earlier report.
    """
    labelled = analysis is not None and analysis.labels is not None
    shown = 0 if analysis is None else len(analysis.images)
    images = f"{facts.probe_image}s" if labelled else "images that were learned from"
    frames = " Blue frames: the same class; orange ones: another." if labelled else ""

    def picture(name: str, heading: str, text: str, reason: str, shown: bool = True) -> Picture:
        path = folder.figures / f"{name}.png"
        # A link in a run folder from elsewhere would show any file of the user's.
        png = path.read_bytes() if shown and path.is_file() and not path.is_symlink() else None
        return Picture(heading, text, png, reason)

    return [
        picture(
            "curves",
            "Curves",
            f"Over epochs; the band is the 95% interval from the {facts.probe_image}s.",
            _NOT_DRAWN,
        ),
        picture(
            "collapse",
            "Collapse",
            "A collapsed network gives all images nearly the same projection; a spectrum that "
            "falls steeply uses few directions.",
            _NOT_DRAWN,
        ),
        picture(
            "neighbours",
            "Neighbours",
            f"Left an image, then those among {shown:,} {images} that are most like it: by the "
            f"network as it was ({facts.start}), and by the trained one below.{frames}",
            missing,
            "neighbours" in drawn,
        ),
        picture(
            "map",
            "Map",
            f"Representations of {facts.probe_image}s in two dimensions (t-SNE): near is alike, "
            "and distances across the map mean little.",
            missing if analysis is None else _too_few_for_map(facts, analysis),
            "map" in drawn,
        ),
        picture(
            "views",
            "Views",
            "Images with the boxes of their crops, and both views of each.",
            _NOT_DRAWN,
        ),
        picture(
            "confusion",
            "Confusions of the probe",
            "Rows are classes, columns the probe's predictions.",
            missing if analysis is None else _too_few_for_confusions(facts, analysis),
            "confusion" in drawn,
        ),
    ]


def _top_confusions(analysis: RepresentationAnalysis) -> list[ClassConfusion]:
    """Returns the most frequent confusions of two classes."""
    matrix = confusion_matrix(analysis)
    np.fill_diagonal(matrix, 0.0)
    most_frequent = np.argsort(-matrix, axis=None, kind="stable")[:_NAMED_CONFUSIONS]
    pairs = [np.unravel_index(position, matrix.shape) for position in most_frequent]
    labels = np.asarray(analysis.test_labels)
    return [
        (
            analysis.class_names[row],
            analysis.class_names[column],
            float(matrix[row, column]),
            int(np.sum(labels == row)),
        )
        for row, column in pairs
        if matrix[row, column] > 0
    ]
