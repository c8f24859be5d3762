"""Predicted classes of photos, as a table and as a sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from byol_tf.embed.contact_sheet import Cell, short_name, write_sheet
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.similar import read_thumbnail
from byol_tf.runs.files import write_csv

_SHEET_COLUMNS, _SHEET_CLASSES = 8, 16


def write_table(table: Path, predicted: EmbeddedPhotos, classes: Sequence[str]) -> None:
    """Writes the two most probable classes of each photo, in the order of paths.

    Args:
        table: the CSV file to write.
        predicted: the photos, with probabilities as their embeddings.
        classes: names of the classes.
    """
    probabilities = predicted.embeddings
    first, second = np.argsort(-probabilities, axis=1, kind="stable")[:, :2].T
    write_csv(
        table,
        ("path", "class", "probability", "second_class", "second_probability"),
        (
            (
                photo.name,
                classes[first[row]],
                f"{probabilities[row, first[row]]:.4f}",
                classes[second[row]],
                f"{probabilities[row, second[row]]:.4f}",
            )
            for row, photo in enumerate(predicted.photos)
        ),
    )


def write_class_sheet(
    sheet: Path, predicted: EmbeddedPhotos, classes: Sequence[str]
) -> dict[str, int]:
    """Draws a row of photos for each class, the least certain first.

    Args:
        sheet: the PNG to write.
        predicted: the photos, with probabilities as their embeddings.
        classes: names of the classes. Of more than 16 the most frequent are drawn.

    Returns:
        Number of photos of each class, the most frequent first; without those of none.
    """
    best, certainty = predicted.embeddings.argmax(axis=1), predicted.embeddings.max(axis=1)
    counts = np.bincount(best, minlength=len(classes))
    order = [int(label) for label in np.argsort(-counts, kind="stable") if counts[label]]
    rows = []
    for label in order[:_SHEET_CLASSES]:
        members = np.flatnonzero(best == label)
        uncertain = members[np.argsort(certainty[members], kind="stable")][:_SHEET_COLUMNS]
        cells = []
        for row in uncertain.tolist():
            photo = predicted.photos[row]
            caption = f"{classes[label]} {certainty[row]:.0%}\n{short_name(photo.name)}"
            cells.append(Cell(read_thumbnail(predicted.images, photo), caption))
        rows.append(cells)
    write_sheet(sheet, rows, "a row for each class, the least certain photos first")
    return {classes[label]: int(counts[label]) for label in order}
