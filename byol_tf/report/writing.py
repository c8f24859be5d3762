"""The page of a run and the figures on it, as files."""

import numpy as np

from byol_tf.report.figures import (
    collapse_figure,
    confusion_figure,
    confusions,
    map_figure,
    neighbours_figure,
)
from byol_tf.report.html import Picture, report_page
from byol_tf.report.representations import RepresentationAnalysis
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.summary import RunFacts

_NO_LABELS = "there are no labelled images"
_CONFUSED = 5  # pairs of classes that are named


def write_report(
    facts: RunFacts, folder: RunFolder, seen: RepresentationAnalysis | None, missing: str = ""
) -> None:
    """Draws collapse, neighbours, map and confusions into `figures/`, and writes `report.html`.
    `OSError` if the disk refuses.

    Args:
        facts: of the run.
        folder: of the run.
        seen: its images through its encoder; None where these aren't to be had.
        missing: why they aren't.
    """
    figures, seed, start = folder.figures, facts.config.seed, facts.start
    collapse_figure(figures / "collapse.png", facts.rows, seen)
    drawn = {"collapse"}
    if seen is not None:
        neighbours_figure(figures / "neighbours.png", seen, seed, start)
        drawn.add("neighbours")
        if map_figure(figures / "map.png", seen, seed, start):
            drawn.add("map")
        if seen.predicted is not None:
            confusion_figure(figures / "confusion.png", seen)
            drawn.add("confusion")
    whose = (
        "test images"
        if seen is not None and seen.labels is not None
        else "images that were learned from"
    )
    frames = (
        " Blue frames: the same class; orange ones: another."
        if seen is not None and seen.labels is not None
        else ""
    )
    without = missing or _NO_LABELS
    shown = 0 if seen is None else len(seen.images)
    never = "the run drew none"
    pictures = [
        _picture(
            folder,
            "curves",
            "Curves",
            "Over epochs; dotted lines are the network before its first step.",
            never,
        ),
        _picture(
            folder,
            "collapse",
            "Collapse",
            "A collapsed network gives all images nearly the same projection; of a spectrum that "
            "falls steeply few directions are used.",
        ),
        _picture(
            folder,
            "neighbours",
            "Neighbours",
            f"Left an image, then those among {shown:,} {whose} that are most like it: by the "
            "network as it was "
            f"({start}), and by the trained one below.{frames}",
            without,
            "neighbours" in drawn,
        ),
        _picture(
            folder,
            "map",
            "Map",
            "Representations of test images in two dimensions (t-SNE): near is alike, and "
            "distances across the map mean little.",
            without
            if seen is None or seen.labels is None
            else "there are fewer than ten test images",
            "map" in drawn,
        ),
        _picture(
            folder,
            "views",
            "What the network saw",
            "Images with the boxes of their crops, and both views of each.",
            never,
        ),
        _picture(
            folder,
            "confusion",
            "What the probe mistakes",
            "Rows are classes, columns what they are taken for.",
            without,
            "confusion" in drawn,
        ),
    ]
    write_atomically(
        folder.report,
        report_page(
            facts, pictures, [] if seen is None or seen.predicted is None else _confused(seen)
        ),
    )


def _picture(
    folder: RunFolder, name: str, heading: str, text: str, missing: str = "", drawn: bool = True
) -> Picture:
    path = folder.figures / f"{name}.png"
    return Picture(heading, text, path.read_bytes() if drawn and path.exists() else None, missing)


def _confused(seen: RepresentationAnalysis) -> list[tuple[str, str, float]]:
    """The pairs of classes that are confused most, by the share of the class."""
    shares = confusions(seen)
    np.fill_diagonal(shares, 0.0)
    most = np.argsort(-shares, axis=None, kind="stable")[:_CONFUSED]
    pairs = [np.unravel_index(place, shares.shape) for place in most]
    return [
        (seen.class_names[row], seen.class_names[column], float(shares[row, column]))
        for row, column in pairs
        if shares[row, column] > 0
    ]
