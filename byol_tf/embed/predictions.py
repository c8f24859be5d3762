"""Labels predicted from a few, as a table and as a sheet of the photos to label next."""

import logging
from pathlib import Path

import numpy as np

from byol_tf.embed.contact_sheet import Cell, short_name, write_sheet
from byol_tf.embed.few_shot import FewShotResult
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.similar import read_thumbnail
from byol_tf.errors import EmbedError
from byol_tf.runs.files import write_csv

_SHEET_PHOTOS, _SHEET_COLUMNS = 24, 6

logger = logging.getLogger(__name__)


def label_rows(embedded: EmbeddedPhotos, labels: dict[str, str], file: str) -> dict[int, str]:
    """Returns the label of each labelled row; warns of photos that have one and can't be read.

    Args:
        embedded: the photos.
        labels: from a photo's name to its label.
        file: that the labels are from, for messages.

    Raises:
        EmbedError: if fewer than two classes are left.
    """
    row_of = {photo.name: row for row, photo in enumerate(embedded.photos)}
    for name in sorted(labels.keys() - row_of.keys()):
        reason = embedded.skipped.get(name, "it was removed")
        logger.warning("%s: %s has a label and can't be read (%s): skipped", file, name, reason)
    rows = {row_of[name]: label for name, label in labels.items() if name in row_of}
    if len(set(rows.values())) < 2:
        raise EmbedError(
            f"{file}: expected readable photos of two classes or more; without unreadable ones "
            "there is one"
        )
    return rows


def write_predictions(
    embedded: EmbeddedPhotos, labels: dict[int, str], result: FewShotResult, table: Path
) -> dict[str, int]:
    """Writes the predicted label of each photo, the least certain first and labelled ones last.

    Args:
        embedded: the photos.
        labels: from row to label.
        result: of `fit_few_shot` with these labels.
        table: the CSV file to write: path, label, prediction, probability, and that of each class.

    Returns:
        For each class the number of photos without a label that are predicted to be of it.
    """
    names = [photo.name for photo in embedded.photos]
    predictions = result.probabilities.argmax(axis=1)
    certainty = result.probabilities.max(axis=1)
    order = _least_certain_first(labels, result)
    write_csv(
        table,
        (
            *("path", "label", "prediction", "probability"),
            *(f"p({name})" for name in result.classes),
        ),
        (
            [names[row], labels.get(row, ""), result.classes[predictions[row]]]
            + [f"{value:.4f}" for value in (certainty[row], *result.probabilities[row])]
            for row in order
        ),
    )
    unlabelled = [row for row in order if row not in labels]
    counts = np.bincount(predictions[unlabelled], minlength=len(result.classes))
    return dict(zip(result.classes, counts.tolist(), strict=True))


def write_uncertain_sheet(
    embedded: EmbeddedPhotos, labels: dict[int, str], result: FewShotResult, sheet: Path
) -> bool:
    """Draws the photos whose labels are the least certain.

    Args:
        embedded: the photos.
        labels: from row to label.
        result: of `fit_few_shot` with these labels.
        sheet: the PNG to write.

    Returns:
        Whether it was written: not if each photo has a label.
    """
    unlabelled = [row for row in _least_certain_first(labels, result) if row not in labels]
    cells = []
    for row in unlabelled[:_SHEET_PHOTOS]:
        photo, probabilities = embedded.photos[row], result.probabilities[row]
        prediction = f"{result.classes[probabilities.argmax()]}? {probabilities.max():.0%}"
        caption = f"{short_name(photo.name)}\n{prediction}"
        cells.append(Cell(read_thumbnail(embedded.images, photo), caption))
    if not cells:
        return False
    rows = [cells[i : i + _SHEET_COLUMNS] for i in range(0, len(cells), _SHEET_COLUMNS)]
    write_sheet(sheet, rows, "the least certain photos: label these next")
    return True


def _least_certain_first(labels: dict[int, str], result: FewShotResult) -> list[int]:
    """Returns the rows in the order of the table."""
    certainty = result.probabilities.max(axis=1)
    return sorted(range(len(certainty)), key=lambda row: (row in labels, certainty[row], row))
