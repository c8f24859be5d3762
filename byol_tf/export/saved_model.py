"""Exports for TensorFlow and Keras: a SavedModel and a `.keras` file."""

import contextlib
import dataclasses
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from byol_tf.errors import UnsafeModelError, one_line
from byol_tf.export.formats import DEFAULT_FORMATS, FORMATS
from byol_tf.export.usage import write_usage
from byol_tf.export.verification import FILE_NAME as VERIFICATIONS
from byol_tf.models.inference import exported_form
from byol_tf.models.safe_loading import check_keras_file
from byol_tf.runs.encoder_input import model_input, write_input
from byol_tf.runs.files import SAVED_MODEL_VERSION, check_no_link

logger = logging.getLogger(__name__)


def write_saved_model(model: keras.Model, folder: Path, classes: Sequence[str] = ()) -> None:
    """Writes a SavedModel with two signatures into `1/` of a new folder.

    `serve`, which is also `serving_default`, takes `images`, uint8 `[N, H, W, 3]` of any size, or
    what the model takes. `serve_bytes`, which only a model of RGB of 8 bits has, takes `encoded`,
    strings `[N]`: the contents of JPEG, PNG, BMP or GIF files, each of its own size. If one of them
    can't be decoded, the call raises InvalidArgumentError. Both return float32 `[N, d]`. That of a
    classifier has a third one, `classes`, which takes nothing and returns their names.

    Args:
        model: the inference model, made of Keras' own layers (see `inference.exported_form`).
        folder: the folder to create.
        classes: names of a classifier's classes.
    """
    centre, encode = split_export(model)

    def decode_square(encoded: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return centre(tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32))

    def serve_bytes(encoded: tf.Tensor) -> tf.Tensor:
        square = tf.TensorSpec(encode.input_shape[1:], tf.float32)
        squares = tf.map_fn(decode_square, encoded, fn_output_signature=square)
        return encode(squares, training=False)

    module = tf.Module()
    # TensorFlow's own variables: `keras.export.ExportArchive` tracks Keras' wrappers as well, and
    # then the file holds each weight twice.
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(
        lambda images: model(images, training=False),
        [images_spec(model)],
        autograph=False,
    )
    signatures = {"serving_default": module.serve, "serve": module.serve}
    if model_input(model).is_rgb:
        module.serve_bytes = tf.function(
            serve_bytes, [tf.TensorSpec((None,), tf.string, name="encoded")], autograph=False
        )
        signatures["serve_bytes"] = module.serve_bytes
    if classes:
        names = [name.encode(errors="surrogateescape") for name in classes]
        module.classes = tf.function(lambda: tf.constant(names), [], autograph=False)
        signatures["classes"] = module.classes
    tf.saved_model.save(module, str(folder / SAVED_MODEL_VERSION), signatures)


def images_spec(model: keras.Model) -> tf.TensorSpec:
    """Returns the type and shape of the images that an inference model takes."""
    (images,) = model.inputs
    return tf.TensorSpec((None, None, None, images.shape[3]), images.dtype, name="images")


def split_export(model: keras.Model) -> tuple[keras.layers.Layer, keras.Model]:
    """Splits an inference model after its resize.

    Returns:
        The layer from float32 images `[N, H, W, channels]` or `[H, W, channels]` to centred squares
        of the encoder's size, with the same values; and the model from these squares to
        representations.
    """
    centre = model.get_layer("centre")
    return centre, keras.Model(centre.output, model.output)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Creates a folder inside `folder`, creating that if missing, and removes it after use.

    Its name is one of those that `remove_left_overs` removes, in case the process is killed.
    """
    check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as staging:
        yield Path(staging)


def replace_path(source: Path, target: Path) -> None:
    """Moves a file or folder to `target`, replacing what is there."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    source.replace(target)


def export_encoder(
    inference: keras.Model,
    folder: Path | str,
    pixel_range: tuple[float, float] | None = None,
) -> None:
    """Writes `encoder/1/` (SavedModel), `encoder.keras` and `USAGE.md` into a folder.

    Both files take images `[N, H, W, 3]` of any size, values 0 to 255 (the SavedModel: uint8, or
    the contents of image files), or those of other channels or 16 bits that the model takes, which
    `input.json` describes; and return float32 representations `[N, d]`. Resizing, cropping
    and normalisation are inside. They are made of Keras' own layers in float32, so that they load
    without byol_tf. Existing files are replaced; other formats in the folder are of an earlier
    encoder, and removed.

    An encoder with other layers than Keras' and byol_tf's, such as a `Lambda`, is exported as a
    SavedModel only: its `.keras` file couldn't be loaded without the code of these layers.

    Example:
        `export_encoder(inference_model(model.encoder, 96, mean, std), "exported")`

    Args:
        inference: the inference model, of `inference_model` or `load_run_encoder`.
        folder: the export folder, created if missing.
        pixel_range: the `data.range` of its images, for `input.json`.

    Raises:
        ValueError: for another model.
        OSError: if a file can't be written.
    """
    folder = Path(folder)
    model = exported_form(inference)
    files = ["encoder", "encoder.keras"]
    with staging_folder(folder) as staging:
        write_saved_model(model, staging / "encoder")
        try:
            model.save(staging / "encoder.keras")
            check_keras_file(staging / "encoder.keras")
        except (NotImplementedError, UnsafeModelError) as error:
            files.remove("encoder.keras")
            (folder / "encoder.keras").unlink(missing_ok=True)
            logger.warning("%s: not written: %s", folder / "encoder.keras", one_line(error))
        for export_format in FORMATS:
            if export_format.name not in DEFAULT_FORMATS:
                (folder / export_format.file).unlink(missing_ok=True)
        (folder / VERIFICATIONS).unlink(missing_ok=True)
        for file in files:
            replace_path(staging / file, folder / file)
    pixels = dataclasses.replace(model_input(model), range=pixel_range)
    write_input(folder, pixels)
    write_usage(folder, model.get_layer("centre").height, pixels=pixels)
