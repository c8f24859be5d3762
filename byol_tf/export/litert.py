"""Exports for phones and small computers: LiteRT (TensorFlow Lite) in three precisions."""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from byol_tf.export.formats import INT8_FILE
from byol_tf.export.saved_model import images_spec, split_export
from byol_tf.export.verification import same_neighbours

logger = logging.getLogger(__name__)

INT8_WEIGHTS_AND_ACTIVATIONS = "weights and activations"
INT8_WEIGHTS_ONLY = "weights only, activations float32"
_MIN_SAME_NEIGHBOUR = 0.98
"""Fraction of the calibration images whose nearest neighbour int8 activations have to keep; the
verification asks for 95% on other images."""


def write_litert(model: keras.Model, folder: Path, calibration: Sequence[np.ndarray]) -> str:
    """Writes `encoder-float32.tflite`, `encoder-float16.tflite` and `encoder-int8.tflite`.

    Each takes one image of the encoder's own size, uint8 or uint16 `[1, size, size, channels]`, and
    returns float32 `[1, d]` (signature `serve`). The size is fixed, as accelerators of phones need
    it and LiteRT has no antialiased resize.

    Args:
        model: the inference model, made of Keras' own layers (see `inference.exported_form`).
        folder: an existing folder.
        calibration: `[size, size, channels]` each, images on which the ranges of int8 activations
            are measured.

    Returns:
        `INT8_WEIGHTS_AND_ACTIVATIONS`, or `INT8_WEIGHTS_ONLY` if int8 activations change too many
        nearest neighbours of the calibration images.
    """
    _, encode = split_export(model)
    squares = np.stack(calibration)
    expected = encode.predict(squares.astype(np.float32), verbose=0)
    with _convertible(model, "representations") as saved:
        _write_float(saved, folder, "encoder")
        content = _convert_to_int8(_converter(saved, optimize=True), squares)
        same = same_neighbours(_represent(content, squares), expected)
        if same < _MIN_SAME_NEIGHBOUR:
            # Weights alone. Small encoders need it, and group and layer normalisation, which divide
            # by statistics of the image.
            content = _converter(saved, optimize=True).convert()
        (folder / INT8_FILE).write_bytes(content)
    int8 = INT8_WEIGHTS_AND_ACTIVATIONS if same >= _MIN_SAME_NEIGHBOUR else INT8_WEIGHTS_ONLY
    logger.info(
        "LiteRT, int8: %s; with both in int8, %.1f%% of %d calibration images keep their nearest "
        "neighbour",
        int8,
        100.0 * same,
        len(squares),
    )
    return int8


def write_float_litert(model: keras.Model, folder: Path, name: str, output: str) -> None:
    """Writes `NAME-float32.tflite` and `NAME-float16.tflite`, as `write_litert` does.

    Args:
        model: the inference model, made of Keras' own layers.
        folder: an existing folder.
        name: stem of the files.
        output: name of the output.
    """
    with _convertible(model, output) as saved:
        _write_float(saved, folder, name)


@contextlib.contextmanager
def _convertible(model: keras.Model, output: str) -> Iterator[str]:
    """Writes a temporary SavedModel for one image, and discards what converters print."""
    _, encode = split_export(model)
    images = images_spec(model)
    archive = keras.export.ExportArchive()
    archive.track(encode)
    archive.add_endpoint(
        "serve",
        lambda images: {output: encode(tf.cast(images, tf.float32), training=False)},
        [tf.TensorSpec((1, *encode.input_shape[1:]), images.dtype, name="images")],
    )
    with tempfile.TemporaryDirectory() as saved, _silence():
        archive.write_out(saved, verbose=False)
        yield saved


def _write_float(saved: str, folder: Path, name: str) -> None:
    (folder / f"{name}-float32.tflite").write_bytes(_converter(saved).convert())
    half = _converter(saved, optimize=True)
    half.target_spec.supported_types = [tf.float16]
    (folder / f"{name}-float16.tflite").write_bytes(half.convert())


def _converter(saved: str, optimize: bool = False) -> tf.lite.TFLiteConverter:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved, signature_keys=["serve"])
    if optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def _convert_to_int8(converter: tf.lite.TFLiteConverter, squares: np.ndarray) -> bytes:
    """Converts weights and activations to int8.

    Operations without an int8 kernel stay in float32, as does the last mean over positions: in int8
    it changes most nearest neighbours.
    """
    converter.representative_dataset = lambda: ({"images": square[None]} for square in squares)
    converter.target_spec.supported_ops = [
        tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
        tf.lite.OpsSet.TFLITE_BUILTINS,
    ]
    # The debugger is TensorFlow's documented way to exclude operations from quantisation.
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=["MEAN"])
    return tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_options=options
    ).get_nondebug_quantized_model()


def _represent(content: bytes, squares: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    run = interpreter.get_signature_runner("serve")
    return np.concatenate([run(images=square[None])["representations"] for square in squares])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discards all output of the process, as the converter's C++ code prints settings as errors."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with open(os.devnull, "w") as devnull, warnings.catch_warnings():
        # The converter checks its result with an interpreter that it reports as deprecated.
        warnings.filterwarnings("ignore", "[\\s\\S]*tf.lite.Interpreter is deprecated", UserWarning)
        try:
            for descriptor in (1, 2):
                os.dup2(devnull.fileno(), descriptor)
            yield
        finally:
            for descriptor, stream in zip((1, 2), saved, strict=True):
                os.dup2(stream, descriptor)
                os.close(stream)
