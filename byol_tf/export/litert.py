"""The encoder for phones and small computers: LiteRT (TensorFlow Lite) in three precisions."""

import contextlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from byol_tf.export.saved_model import split_export
from byol_tf.export.verification import same_neighbours

INT8_EVERYWHERE, INT8_WEIGHTS = "weights and activations", "weights only, activations float32"
"""What of `encoder-int8.tflite` is int8, in words for people."""
_KEPT = 0.98
"""Share of nearest neighbours that int8 activations have to keep among the images that they are
calibrated on; the proof asks for 95% of others."""


def write_litert(
    plain: keras.Model, folder: Path, squares: np.ndarray, say: Callable[[str], None]
) -> str:
    """Writes `encoder-float32.tflite`, `encoder-float16.tflite` and `encoder-int8.tflite`.

    Each takes one image of the encoder's own size, uint8 `[1, size, size, 3]`, and gives float32
    `[1, d]` (signature `serve`). The size is fixed since accelerators of phones take no other, and
    LiteRT has no antialiased resize.

    Args:
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        folder: where they go.
        squares: uint8 `[n, size, size, 3]`, images that the ranges of int8's activations are
            measured on.
        say: prints a line for people: what is in int8.

    Returns:
        `INT8_EVERYWHERE` or `INT8_WEIGHTS`.
    """
    _, encode = split_export(plain)
    size = encode.input_shape[1]
    archive = keras.export.ExportArchive()
    archive.track(encode)
    signature = [tf.TensorSpec((1, size, size, 3), tf.uint8, name="images")]
    archive.add_endpoint(
        "serve",
        lambda images: {"representations": encode(tf.cast(images, tf.float32), training=False)},
        signature,
    )
    expected = encode.predict(squares.astype(np.float32), verbose=0)
    with tempfile.TemporaryDirectory() as saved, _quiet():
        archive.write_out(saved, verbose=False)
        (folder / "encoder-float32.tflite").write_bytes(_converter(saved).convert())
        (folder / "encoder-float16.tflite").write_bytes(_float16(_converter(saved)))
        content = _int8(_converter(saved), squares)
        kept = same_neighbours(_outputs(content, squares), expected)
        if kept < _KEPT:
            content = _int8_weights(_converter(saved))
        (folder / "encoder-int8.tflite").write_bytes(content)
    int8 = INT8_EVERYWHERE if kept >= _KEPT else INT8_WEIGHTS
    say(
        f"LiteRT, int8: {int8}; with both in int8, {kept:.1%} of {len(squares)} images that they "
        "were calibrated on keep their neighbour"
    )
    return int8


def _converter(saved: str) -> tf.lite.TFLiteConverter:
    return tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=["serve"])


def _float16(converter: tf.lite.TFLiteConverter) -> bytes:
    converter.optimizations, converter.target_spec.supported_types = (
        [tf.lite.Optimize.DEFAULT],
        [tf.float16],
    )
    return converter.convert()


def _int8(converter: tf.lite.TFLiteConverter, squares: np.ndarray) -> bytes:
    """Weights and activations in int8. What has no int8 kernel stays in float, and the last mean
    over places: it costs most neighbours."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ({"images": square[None]} for square in squares)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    # TensorFlow's documented way to choose what is quantised goes through its debugger.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["MEAN"])
    return tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_options=options
    ).get_nondebug_quantized_model()


def _int8_weights(converter: tf.lite.TFLiteConverter) -> bytes:
    """Weights in int8: for small encoders, and for group and layer normalisation, which divide by
    what they find in an image."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _outputs(content: bytes, squares: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    run = interpreter.get_signature_runner("serve")
    return np.concatenate([run(images=square[None])["representations"] for square in squares])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is printed: the converter's C++ tells of its settings, and of optimisations that
    don't apply, as if they were errors."""
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
