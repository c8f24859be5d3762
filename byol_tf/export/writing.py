"""Each format is written beside its place, proven there, and put into place file by file."""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from byol_tf.errors import VerificationError
from byol_tf.export.formats import INT8, ExportFormat, select_formats
from byol_tf.export.litert import write_litert
from byol_tf.export.onnx import write_onnx
from byol_tf.export.saved_model import split_export, write_saved_model
from byol_tf.export.verification import Verification

Prove = Callable[[Sequence[ExportFormat], Path], list[Verification]]


def write_verified(
    name: str,
    plain: keras.Model,
    folder: Path,
    calibration: Sequence[np.ndarray],
    prove: Prove,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Verification], list[str]]:
    """Writes the files of a format, proves them, and puts those in place of which every form is
    near enough.

    Args:
        name: one of `forms.FORMATS`.
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        folder: of the export; made if missing. A file that fails leaves nothing there, and what was
            in its place stays.
        calibration: uint8 images `[H, W, 3]` that int8's ranges are measured on.
        prove: forms, the folder with their files -> what was measured of each (see
            `verification.py`).
        say: prints a line for people.

    Returns:
        What was measured, and a line for each reason why a file was left out.

    Raises:
        OSError: if the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside, forms = folder / ".export.part", select_formats((name,))
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        int8 = _write(name, plain, beside, calibration, say)
        proofs = [
            dataclasses.replace(proof, int8=int8) if proof.name == INT8 else proof
            for proof in prove(forms, beside)
        ]
        reasons = {form.name: [] for form in forms}
        for form, proof in zip(forms, proofs, strict=True):
            reasons[form.name] += [
                f"{form.name}: {form.what}: {failure}" for failure in proof.failures(form)
            ]
        for file, why in reasons.items():
            if not why:
                _place(beside / file, folder / file)
        return proofs, [line for why in reasons.values() for line in why]
    except VerificationError as error:
        return [], [str(error)]
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(
    name: str,
    plain: keras.Model,
    folder: Path,
    calibration: Sequence[np.ndarray],
    say: Callable[[str], None],
) -> str | None:
    """Writes the files of a format; returns what is int8 in that which has it (see `litert.py`),
    None where there is none."""
    try:
        if name == "saved_model":
            write_saved_model(plain, folder / "encoder")
        elif name == "keras":
            plain.save(folder / "encoder.keras")
        elif name == "onnx":
            write_onnx(plain, folder / "encoder.onnx")
        else:
            centre, _ = split_export(plain)
            squares = np.stack(
                [np.asarray(centre(image.astype(np.float32))) for image in calibration]
            )
            return write_litert(plain, folder, np.rint(squares).astype(np.uint8), say)
    except OSError:
        raise
    except (
        Exception
    ) as error:  # converters raise many kinds, and the next format may still be written
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise VerificationError(f"{name}: can't be written: {text}") from error
    return None


def _place(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
