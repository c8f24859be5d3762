"""Writes an export format, verifies its files, and keeps those that pass."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np

from byol_tf.errors import VerificationError, one_line
from byol_tf.export.formats import INT8_FILE, select_formats
from byol_tf.export.litert import write_litert
from byol_tf.export.onnx import write_onnx
from byol_tf.export.sample_images import Samples
from byol_tf.export.saved_model import (
    replace_path,
    split_export,
    staging_folder,
    write_saved_model,
)
from byol_tf.export.verification import Verification, record_verifications, verify
from byol_tf.runs.encoder_input import model_input

WRITERS: dict[str, Callable[[keras.Model, Path, Sequence[np.ndarray]], str | None]] = {
    "saved_model": lambda model, folder, _: write_saved_model(model, folder / "encoder"),
    "keras": lambda model, folder, _: model.save(folder / "encoder.keras"),
    "litert": write_litert,
    "onnx": lambda model, folder, _: write_onnx(model, folder / "encoder.onnx"),
}
"""Name of a format -> what writes its files, given the model, a folder and images for calibration;
LiteRT's returns which tensors of its int8 file are int8."""


def write_verified(
    name: str, model: keras.Model, folder: Path, samples: Samples, expected: np.ndarray
) -> tuple[list[Verification], list[str]]:
    """Writes the files of a format and keeps those that represent images as the run's encoder does.

    Their measurements are recorded in `verification.json`.

    Args:
        name: one of `formats.FORMAT_NAMES`.
        model: the inference model, made of Keras' own layers (see `inference.exported_form`).
        folder: the export folder, created if missing. A file that fails isn't left there; an
            earlier file of its name stays.
        samples: images to compare on, and to calibrate int8 on.
        expected: float32 `[photos + images, ...]`, the representations or maps of the samples by
            the run's own encoder.

    Returns:
        The measurements of each file, and a line for each reason why a file wasn't kept.

    Raises:
        OSError: if a file can't be written.
    """
    formats = select_formats((name,), model_input(model))
    size = split_export(model)[1].input_shape[1]
    with staging_folder(folder) as staging:
        try:
            with failures_of(name):
                int8 = WRITERS[name](model, staging, samples.calibration)
            verifications = verify(formats, staging, size, samples, expected)
        except VerificationError as error:
            return [], [str(error)]
        verifications = [
            dataclasses.replace(verification, int8=int8)
            if verification.file == INT8_FILE
            else verification
            for verification in verifications
        ]
        reasons: dict[str, list[str]] = {export_format.file: [] for export_format in formats}
        for export_format, verification in zip(formats, verifications, strict=True):
            reasons[export_format.file] += [
                f"{export_format.file}: {export_format.title}: {failure}"
                for failure in verification.failures(export_format.tolerance)
            ]
        passed = [file for file, lines in reasons.items() if not lines]
        for file in passed:
            replace_path(staging / file, folder / file)
    if passed:
        record_verifications(folder, [each for each in verifications if each.file in passed])
    return verifications, [line for lines in reasons.values() for line in lines]


@contextlib.contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Raises `VerificationError` for any failure of a format's writer but `OSError`."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # converters raise many types, and other formats may succeed
        raise VerificationError(f"{name}: can't be written: {one_line(error)}") from error
