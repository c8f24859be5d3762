"""The encoder for phones and small computers: LiteRT (TensorFlow Lite) in three precisions."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from byol_tf.exporting.saved_model import parts_of_export

PRECISIONS = ("float32", "float16", "int8")


def write_litert(plain: keras.Model, folder: Path, squares: np.ndarray) -> None:
    """Writes `encoder-float32.tflite`, `encoder-float16.tflite` and `encoder-int8.tflite`.

    Each takes one image of the encoder's own size, uint8 `[1, size, size, 3]`, and gives float32 `[1, d]` (signature `serve`). The size is
    fixed since accelerators of phones take no other, and LiteRT has no antialiased resize.

    Args:
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        folder: where they go.
        squares: uint8 `[n, size, size, 3]`, images that int8's ranges are measured on.
    """
    _, encode = parts_of_export(plain)
    size = encode.input_shape[1]
    archive = keras.export.ExportArchive()
    archive.track(encode)
    signature = [tf.TensorSpec((1, size, size, 3), tf.uint8, name="images")]
    archive.add_endpoint("serve", lambda images: {"representations": encode(tf.cast(images, tf.float32), training=False)}, signature)
    with tempfile.TemporaryDirectory() as saved, _quiet():
        archive.write_out(saved, verbose=False)
        for precision in PRECISIONS:
            converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=["serve"])
            if precision == "float16":
                converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
            content = _int8(converter, squares, _normalises_each_image(encode)) if precision == "int8" else converter.convert()
            (folder / f"encoder-{precision}.tflite").write_bytes(content)


def _normalises_each_image(encode: keras.Model) -> bool:
    (encoder,) = [layer for layer in encode.layers if isinstance(layer, keras.Model)]
    return any(isinstance(layer, keras.layers.GroupNormalization | keras.layers.LayerNormalization) for layer in encoder.layers)


def _int8(converter: tf.lite.TFLiteConverter, squares: np.ndarray, weights_only: bool) -> bytes:
    """Weights in int8, and activations too, by ranges measured on images, unless `weights_only`.

    Group and layer normalisation divide by what they find in an image. With that in int8 a trained encoder kept 91 of 100 nearest
    neighbours, with weights alone in int8 96; the file is as small. The last mean over places stays in float: 99 of 100 instead of 97.
    """
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights_only:
        return converter.convert()
    converter.representative_dataset = lambda: ({"images": square[None]} for square in squares)
    # What has no int8 kernel stays in float.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["MEAN"])
    # TensorFlow's documented way to choose what is quantised goes through its debugger.
    return tf.lite.experimental.QuantizationDebugger(converter=converter, debug_options=options).get_nondebug_quantized_model()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed: the converter's C++ tells of its settings, and of optimisations that don't apply, as if they were errors."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as nowhere, warnings.catch_warnings():
        # The converter looks at its result with the interpreter that it says is deprecated.
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated", UserWarning)
        try:
            for number in (1, 2):
                os.dup2(nowhere.fileno(), number)
            yield
        finally:
            for number, stream in zip((1, 2), kept, strict=True):
                os.dup2(stream, number)
                os.close(stream)
