"""The folder of an exported classifier: names of its classes, and whether one can be written."""

import json
import unicodedata
from pathlib import Path

from byol_tf.errors import OutputError, ProtocolError, describe_path
from byol_tf.runs.files import check_no_link, read_text, why_no_folder

CLASSES_FILE = "classes.json"
"""Names of the classes, a JSON list in the order of the probabilities."""


def check_classifier_folder(folder: Path) -> None:
    """Checks that a classifier can be exported to a folder, before the work on it.

    Raises:
        OutputError: if it is no folder, or isn't empty: an earlier classifier isn't replaced.
        RunFolderError: if it is a link.
    """
    reason = why_no_folder(folder)
    if reason is None:
        check_no_link(folder)
        if (folder / CLASSES_FILE).exists():
            reason = "it holds a classifier, which isn't replaced"
        elif folder.is_dir() and any(file.name[0] != "." for file in folder.iterdir()):
            reason = "it isn't empty"  # hidden files may be of a killed process
    if reason is not None:
        raise OutputError(f"--export {folder}: expected a new or empty folder; {reason}")


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
        # A terminal might act on control characters; half a surrogate pair can't be written.
        or any(unicodedata.category(char) in ("Cc", "Cs") for name in classes for char in name)
    ):
        raise ProtocolError(
            f"{file}: expected the names of two or more classes, a JSON list of different strings "
            "without control characters"
        )
    return classes
