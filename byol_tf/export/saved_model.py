"""The encoder as files: a SavedModel for any TensorFlow program and a `.keras` file for any Keras
one."""

import shutil
from pathlib import Path

import keras
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.export.usage import write_usage
from byol_tf.models.inference import exported_form
from byol_tf.runs.files import SAVED_MODEL_VERSION, atomic_folder


def write_saved_model(plain: keras.Model, folder: Path) -> None:
    """Writes a SavedModel with two signatures.

    Args:
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        folder: to make, with a `1/` in it.

    `serve`, also `serving_default`, takes `images`: uint8 `[N, H, W, 3]` of any size. `serve_bytes`
    takes `encoded`: the bytes of N JPEG, PNG, BMP or GIF files, strings `[N]`, each of its own
    size. Both give float32 `[N, d]`. Where one of the files can't be decoded, the whole call raises
    InvalidArgumentError.
    """
    centre, encode = split_export(plain)

    def square(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return centre(tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32))

    def from_bytes(encoded):
        squares = tf.map_fn(
            square, encoded, fn_output_signature=tf.TensorSpec(encode.input_shape[1:], tf.float32)
        )
        return encode(squares, training=False)

    module = tf.Module()
    # TensorFlow's variables and not Keras' around them, which `keras.export.ExportArchive` takes:
    # those are saved beside the ones that the functions read, so that each weight is in the file
    # twice.
    module.weights = [variable.value for variable in plain.variables]
    module.serve = tf.function(
        lambda images: plain(images, training=False),
        [tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")],
        autograph=False,
    )
    module.serve_bytes = tf.function(
        from_bytes, [tf.TensorSpec((None,), tf.string, name="encoded")], autograph=False
    )
    signatures = {
        "serving_default": module.serve,
        "serve": module.serve,
        "serve_bytes": module.serve_bytes,
    }
    tf.saved_model.save(module, str(folder / SAVED_MODEL_VERSION), signatures)


def split_export(plain: keras.Model) -> tuple[keras.layers.Layer, keras.Model]:
    """(the layer that makes a float32 image `[N, H, W, 3]` or `[H, W, 3]` the square that the
    encoder takes, still 0 to 255; the rest)."""
    centre = plain.get_layer("centre")
    return centre, keras.Model(centre.output, plain.output)


def export_encoder(inference: keras.Model, folder: Path, config: Config) -> None:
    """Writes `encoder/1/` (SavedModel), `encoder.keras` and `USAGE.md` into a folder, replacing
    what is there once both are whole.

    Args:
        inference: see `models/inference.py`.
        folder: made if missing.
        config: for size, mean and std.

    Both take images `[N, H, W, 3]` of any size with values 0 to 255 and give float32
    representations `[N, d]`; resize, crop and normalisation are inside. The SavedModel takes uint8,
    or files' bytes. Both hold Keras' own layers in float32, so that neither needs byol_tf. Other
    formats that are in the folder are of an earlier encoder, and removed.
    """
    plain = exported_form(inference, *config.views.preparation)
    folder.mkdir(parents=True, exist_ok=True)
    keras_file = folder / ".encoder.part.keras"  # Keras saves only to names that end so
    with atomic_folder(folder / "encoder") as saved_model:
        write_saved_model(plain, saved_model)
        plain.save(keras_file)
        for path in (
            *folder.glob("encoder*.tflite"),
            folder / "encoder.onnx",
            folder / "proof.json",
        ):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / "encoder", ignore_errors=True)
    keras_file.replace(folder / "encoder.keras")
    write_usage(folder, config.views.size)
