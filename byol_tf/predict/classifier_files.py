"""The files of a classifier that a user named."""

import os
from pathlib import Path

from byol_tf.errors import ProtocolError, describe_path
from byol_tf.export.classifier_folder import CLASSES_FILE, read_classes
from byol_tf.runs.encoder_files import EncoderFiles, exported_files
from byol_tf.runs.files import newest_version


def classifier_files(text: str) -> tuple[EncoderFiles, list[str]]:
    """Finds a classifier and the names of its classes.

    Args:
        text: the path as the user wrote it: a folder that `--export` made, or in it the
            `classifier.keras` or the folder of the SavedModel. Of a folder with both, the `.keras`
            file is used, of which only arrays and Keras' own layers are read.

    Returns:
        (the classifier, the names of its classes).

    Raises:
        ProtocolError: if there is no classifier, or no `classes.json` in its folder or in those
            above it.
    """
    path = Path(text)
    if os.path.isfile(path / "classifier.keras"):
        path = path / "classifier.keras"
    elif os.path.isdir(path / "classifier"):
        path = path / "classifier"
    path = newest_version(path)
    saved_model = (path / "saved_model.pb").is_file()
    if not saved_model and not (path.suffix == ".keras" and path.is_file()):
        found = "that folder holds none" if path.is_dir() else describe_path(path)
        raise ProtocolError(
            f"--classifier {text}: expected a folder that evaluate finetune --export or embed "
            f"--few --export has made, with a classifier.keras or a SavedModel; {found}"
        )
    files = sorted(each for each in path.rglob("*") if each.is_file()) if saved_model else [path]
    # A SavedModel is in DIR/classifier/1, a .keras file in DIR.
    folders = [path.parent, path.parent.parent] if saved_model else [path.parent]
    names = next(
        (each / CLASSES_FILE for each in folders if (each / CLASSES_FILE).is_file()),
        folders[-1] / CLASSES_FILE,
    )
    classes = read_classes(names)
    return exported_files(path, [*files, names], "--classifier"), classes
