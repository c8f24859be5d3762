"""The files of an encoder that a user named, and a digest that changes with them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from byol_tf.config.loading import load_config
from byol_tf.errors import EmbedError, describe_path
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.runs.encoder_input import check_input, find_input, read_input
from byol_tf.runs.files import check_fits_memory, newest_version, sha256
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.hub import encoder_path
from byol_tf.runs.sources import pixel_format
from pipelines.sources import RGB, PixelFormat

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class EncoderFiles:
    """Location and version of an encoder.

    Attributes:
        path: a run folder, the folder of a SavedModel, or a `.keras` file.
        is_run: whether it is a run folder, of which the newest checkpoint is used.
        digest: SHA-256 in hexadecimal of the files that determine its outputs.
        pixels: channels, depth and range of the images that it takes.
        option: the option or key that named it, with which messages begin.
    """

    path: Path
    is_run: bool
    digest: str
    pixels: PixelFormat = RGB
    option: str = "--encoder"

    def load(self) -> "keras.Model":
        """Loads the model from images `[N, H, W, channels]` to float32 `[N, d]`, in float32.

        Raises:
            ProtocolError: if it isn't an encoder of such images, or might do more than compute.
            ConfigError: if a run's config can't be read.
        """
        from byol_tf.models.inference import exported_form
        from byol_tf.runs.encoders import load_encoder_file, load_run_encoder

        if not self.is_run:
            model = load_encoder_file(self.path, self.option)
            check_input(model, self.pixels, f"{self.option} {self.path}")
            return model
        folder = RunFolder(self.path)
        return exported_form(load_run_encoder(load_config(folder.config), folder))


def exported_files(path: Path, files: list[Path], option: str) -> EncoderFiles:
    """Returns an exported model, with the `input.json` of its folder if there is one.

    Args:
        path: of the `.keras` file, or of the SavedModel's folder, which is in `DIR/encoder/1`.
        files: that determine its outputs.
        option: see `EncoderFiles`.
    """
    described = find_input((path.parent, path.parent.parent))
    if described is not None:
        files = [*files, described]
    pixels = RGB if described is None else read_input(described)
    return EncoderFiles(path, False, files_digest(files, option), pixels, option)


def encoder_files(text: str, option: str = "--encoder") -> EncoderFiles:
    """Finds the encoder in a run folder, an export, a converted folder or one of their files.

    Of a folder of numbered SavedModels the highest number is taken, as TensorFlow Serving does.

    Args:
        text: the path as the user wrote it, or an address (see `hub.encoder_path`).
        option: see `EncoderFiles`.

    Raises:
        EmbedError: if there is no encoder.
    """
    path = encoder_path(text, option)
    if os.path.isfile(path):
        return exported_files(path, [path], option)
    if not os.path.isdir(path):
        raise EmbedError(
            f"{option} {text}: expected a run folder, the folder of a SavedModel or a .keras "
            f"file; {describe_path(path)}"
        )
    try:
        return _in_folder(text, newest_version(path), option)
    except OSError as error:
        raise EmbedError(f"{option} {text}: can't be read: {error.strerror or error}") from error


def _in_folder(text: str, path: Path, option: str) -> EncoderFiles:
    if (path / "saved_model.pb").is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return exported_files(path, files, option)
    run = RunFolder(path)
    checkpoints = list_checkpoints(run.checkpoints) if run.config.is_file() else []
    if checkpoints:
        digest = files_digest([run.config, *sorted(checkpoints[-1].iterdir())], option)
        return EncoderFiles(path, True, digest, pixel_format(load_config(run.config)), option)
    for exported in (path / "encoder.keras", run.export / "encoder.keras"):
        if exported.is_file():
            return exported_files(exported, [exported], option)
    raise EmbedError(
        f"{option} {text}: expected a run folder with a checkpoint or an export, the folder of a "
        "SavedModel or a .keras file; that folder holds none of them"
    )


def files_digest(files: list[Path], option: str) -> str:
    """Returns the SHA-256 in hexadecimal of some files' names and contents."""
    digest = hashlib.sha256()
    for path in files:
        try:
            check_fits_memory([path])
            content = sha256(path)
        except OSError as error:
            raise EmbedError(
                f"{option} {path}: can't be read: {error.strerror or error}"
            ) from error
        digest.update(os.fsencode(path.name) + bytes.fromhex(content))
    return digest.hexdigest()
