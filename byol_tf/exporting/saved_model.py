"""The SavedModel: TensorFlow's own format, as its Serving takes it."""

import contextlib
import io
from pathlib import Path

import keras
import tensorflow as tf

VERSION = "1"
"""The folder inside a model's folder that TensorFlow Serving looks for: a number."""


def write_saved_model(plain: keras.Model, folder: Path) -> None:
    """Writes a SavedModel with two signatures.

    Args:
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        folder: to make, with a `1/` in it.

    `serve`, also `serving_default`, takes `images`: uint8 `[N, H, W, 3]` of any size. `serve_bytes` takes `encoded`: the bytes of N JPEG,
    PNG, BMP or GIF files, strings `[N]`, each of its own size. Both give float32 `[N, d]`. Where one of the files can't be decoded, the
    whole call raises InvalidArgumentError.
    """
    centre, encode = parts_of_export(plain)

    def square(encoded):
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return centre(tf.cast(tf.ensure_shape(image, (None, None, 3)), tf.float32))

    def from_bytes(encoded):
        squares = tf.map_fn(square, encoded, fn_output_signature=tf.TensorSpec(encode.input_shape[1:], tf.float32))
        return encode(squares, training=False)

    archive = keras.export.ExportArchive()
    archive.track(plain)
    archive.add_endpoint(
        "serve", lambda images: plain(images, training=False), [tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")]
    )
    archive.add_endpoint("serve_bytes", from_bytes, [tf.TensorSpec((None,), tf.string, name="encoded")])
    with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the signatures, also when told not to
        archive.write_out(folder / VERSION, verbose=False)


def parts_of_export(plain: keras.Model) -> tuple[keras.layers.Layer, keras.Model]:
    """(the layer that makes a float32 image `[N, H, W, 3]` or `[H, W, 3]` the square that the encoder takes, still 0 to 255; the rest)."""
    centre = plain.get_layer("centre")
    return centre, keras.Model(centre.output, plain.output)
