"""Which encoder a path means, and how to tell whether it is still the same one. Needs no
TensorFlow."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from byol_tf.errors import EmbedError
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.runs.files import newest_version
from byol_tf.runs.folder import RunFolder


@dataclass(frozen=True)
class EncoderFiles:
    """Where an encoder is.

    Attributes:
        path: a run folder, the folder of a SavedModel, or a `.keras` file.
        run: whether it is a run, whose newest checkpoint counts.
        digest: SHA-256 in hexadecimal over the files that decide what it gives.
    """

    path: Path
    run: bool
    digest: str


def encoder_files(text: str) -> EncoderFiles:
    """Finds the encoder that a user named: a run, an export, a converted folder or one of their
    files. `EmbedError` without any.

    Of a folder of numbered SavedModels, as TensorFlow Serving has them, the highest is taken, as
    Serving does.
    """
    path = newest_version(Path(text).expanduser())
    if path.is_file():
        return EncoderFiles(path, False, _digest([path]))
    if not path.is_dir():
        raise EmbedError(
            f"--encoder {text}: expected a run folder, the folder of a SavedModel or a .keras "
            "file; there is nothing there"
        )
    if (path / "saved_model.pb").is_file():
        return EncoderFiles(
            path, False, _digest(sorted(file for file in path.rglob("*") if file.is_file()))
        )
    run = RunFolder(path)
    checkpoints = list_checkpoints(run.checkpoints) if run.config.is_file() else []
    if checkpoints:
        return EncoderFiles(path, True, _digest([run.config, *sorted(checkpoints[-1].iterdir())]))
    for exported in (path / "encoder.keras", run.export / "encoder.keras"):
        if exported.is_file():
            return EncoderFiles(exported, False, _digest([exported]))
    raise EmbedError(
        f"--encoder {text}: expected a run folder with a checkpoint or an export, the folder of a "
        "SavedModel or a .keras file; "
        "that folder holds none of them"
    )


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            with file.open("rb") as stream:
                digest.update(
                    os.fsencode(file.name) + hashlib.file_digest(stream, "sha256").digest()
                )
        except OSError as error:
            raise EmbedError(
                f"--encoder: {file} can't be read: {error.strerror or error}"
            ) from error
    return digest.hexdigest()
