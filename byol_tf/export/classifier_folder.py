"""The folder of an exported classifier: names of its classes, and whether one can be written."""

import json
from pathlib import Path

from byol_tf.errors import OutputError, ProtocolError, describe_path
from byol_tf.runs.files import check_no_link, read_text, why_no_folder

CLASSES_FILE = "classes.json"
"""Names of the classes, a JSON list in the order of the probabilities."""


def check_classifier_folder(folder: Path) -> None:
    """Checks that a classifier can be exported to a folder, before the work on it.

    Raises:
        OutputError: if it is no folder, or holds something else than an exported classifier.
        RunFolderError: if it is a link.
    """
    if reason := why_no_folder(folder):
        raise OutputError(f"--export {folder}: expected a folder, new or not; {reason}")
    check_no_link(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CLASSES_FILE).is_file():
        raise OutputError(
            f"--export {folder}: expected a new or empty folder, or one with a classifier; it "
            "holds something else"
        )


def read_classes(file: Path) -> list[str]:
    """Reads a `classes.json`.

    Raises:
        ProtocolError: if there is none, or it is something else than a list of two or more names.
    """
    try:
        classes = json.loads(read_text(file))
    except OSError as error:
        raise ProtocolError(
            f"{file}: expected the names of the classes, a JSON list; {describe_path(file)}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProtocolError(
            f"{file}: expected the names of the classes, a JSON list; {error}"
        ) from error
    if (
        not isinstance(classes, list)
        or len(classes) < 2
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise ProtocolError(
            f"{file}: expected the names of two or more classes, a JSON list of different strings"
        )
    return classes
