"""Comparison of exported files with the run's own encoder, each loaded in a fresh process."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from byol_tf.errors import VerificationError, escape
from byol_tf.export import verification_worker
from byol_tf.export.formats import ExportFormat, Tolerance
from byol_tf.export.sample_images import Samples
from byol_tf.runs.files import read_text, write_atomically
from pipelines.sources import PixelFormat

FILE_NAME = "verification.json"
_TIMEOUT = 2700.0
"""Seconds until a worker counts as hanging. A small encoder needs ten, the largest one on a CPU of
few cores 9 a photo."""
_MIN_IMAGES = 20
"""With fewer images, one would change the share of nearest neighbours by more than 5%."""
_NEIGHBOUR_SET = 100
"""Nearest neighbours are searched among this many images: the more there are, the smaller is the
difference between the nearest two, and the less it means which of them is nearer."""


@dataclass(frozen=True)
class Verification:
    """Measurements of one exported file, used in one way.

    Attributes:
        file: name of the file or folder in the export folder.
        title: that of the `ExportFormat`.
        megabytes: size of the file or folder in 10^6 bytes.
        milliseconds: median time of one photo on this machine's CPU, resizing included, loading
            the file not.
        difference: largest absolute difference from the run's own representations, relative to
            their largest absolute value.
        cosine: smallest cosine similarity between both representations of an image.
        same_neighbour: fraction of the source's images whose nearest neighbour, among 100 of them,
            is the same one; None if there were too few images.
        photos: number of photos of odd sizes.
        images: number of images from the run's source.
        int8: which tensors of an int8 file are int8 (see `litert.py`); None for any other file.
    """

    file: str
    title: str
    megabytes: float
    milliseconds: float
    difference: float
    cosine: float
    same_neighbour: float | None
    photos: int
    images: int
    int8: str | None = None

    def failures(self, tolerance: Tolerance) -> list[str]:
        """Returns a line for each measurement that is outside the tolerance.

        The comparisons are negated so that NaN fails.
        """
        failures = []
        if not self.difference <= tolerance.difference:
            failures.append(
                f"largest difference {self.difference:.2g} of the largest value; at most "
                f"{tolerance.difference:g} passes"
            )
        if not self.cosine >= tolerance.cosine:
            failures.append(
                f"smallest cosine {self.cosine:.6f}; at least {tolerance.cosine:g} passes"
            )
        if self.same_neighbour is not None and not self.same_neighbour >= tolerance.same_neighbour:
            kept = f"{self.same_neighbour:.1%} of {self.images} images keep their nearest neighbour"
            failures.append(f"{kept}; at least {tolerance.same_neighbour:.0%} passes")
        return failures


def verify(
    formats: Sequence[ExportFormat],
    folder: Path,
    size: int,
    samples: Samples,
    expected: np.ndarray,
) -> list[Verification]:
    """Runs the snippets of some formats in a fresh process, and compares their representations.

    Args:
        formats: formats of one name.
        folder: the folder with their files; a `photo.jpg` or `photo.npy` is written there.
        size: side of the encoder's input in pixels.
        samples: the photos and images to compare on.
        expected: float32 `[photos + images, d]`, the run's own representations.

    Returns:
        The measurements of each format, in order.

    Raises:
        VerificationError: if the process fails, or the representations have another shape.
    """
    images = [*samples.photos, *samples.images]
    milliseconds, outputs = run_snippets(formats, folder, size, images)
    return [
        _compare(export_format, folder, time, representations, expected, samples)
        for export_format, time, representations in zip(formats, milliseconds, outputs, strict=True)
    ]


def run_snippets(
    formats: Sequence[ExportFormat], folder: Path, size: int, images: Sequence[np.ndarray]
) -> tuple[list[float], list[np.ndarray]]:
    """Runs the snippets of some formats on images, in a fresh process.

    The process can't import byol_tf, nor TensorFlow where the snippets don't need it.

    Args:
        formats: formats of one name.
        folder: the folder with their files; a `photo.jpg` or `photo.npy` is written there.
        size: side of the model's input in pixels.
        images: `[H, W, channels]` each, as the model takes them.

    Returns:
        For each format the median time of an image in milliseconds, and the outputs, float32
        `[images, d]`.

    Raises:
        VerificationError: if the process fails.
    """
    blocked = ["byol_tf", "pipelines"]
    if not formats[0].uses_tensorflow:
        blocked += ["tensorflow", "keras"]
    pixels = PixelFormat(images[0].shape[2], 8 * images[0].itemsize)
    _write_image(folder / ("photo.jpg" if pixels.is_rgb else "photo.npy"), images[0])
    with tempfile.TemporaryDirectory() as temporary:
        job_folder = Path(temporary)
        results_path = job_folder / "results.npz"
        job = {
            "blocked": blocked,
            "folder": str(folder.resolve()),
            "function": formats[0].subject.function,
            "snippets": [
                {
                    "code": export_format.code(size, pixels),
                    "takes_bytes": export_format.snippet.takes_bytes,
                }
                for export_format in formats
            ],
            "images": _write_images(job_folder, images, ".png" if pixels.is_rgb else ".npy"),
            "results": str(results_path),
        }
        (job_folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run_worker(job_folder / "job.json", formats[0].name)
        with np.load(results_path) as results:
            outputs = [results[f"arr_{number}"] for number in range(len(formats))]
            return results["milliseconds"].tolist(), outputs


def _write_images(folder: Path, images: Sequence[np.ndarray], suffix: str) -> list[str]:
    paths = [folder / f"{number:04d}{suffix}" for number in range(len(images))]
    for path, pixels in zip(paths, images, strict=True):
        _write_image(path, pixels)
    return list(map(str, paths))


def _write_image(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, pixels)
    else:
        Image.fromarray(pixels).save(path, compress_level=1)


def _run_worker(job: Path, format_name: str) -> None:
    # On the CPU, as a GPU may round convolutions to TF32, a larger difference than the formats'.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # -P: without it the folder of the script, with its onnx.py, would be searched for modules.
    command = [sys.executable, "-P", verification_worker.__file__, str(job)]
    try:
        process = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"{format_name}: no answer in {_TIMEOUT:g} s") from error
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {process.returncode}"
        raise VerificationError(f"{format_name}: {reason}")


def _compare(
    export_format: ExportFormat,
    folder: Path,
    milliseconds: float,
    outputs: np.ndarray,
    expected: np.ndarray,
    samples: Samples,
) -> Verification:
    if outputs.shape != expected.shape:
        raise VerificationError(
            f"{export_format.file}: expected {list(expected.shape)} numbers; received "
            f"{list(outputs.shape)}"
        )
    photos, images = len(samples.photos), len(samples.images)
    same = None
    if images >= _MIN_IMAGES:
        same = same_neighbours(outputs[photos:], expected[photos:])
    return Verification(
        file=export_format.file,
        title=export_format.title,
        megabytes=file_size(folder / export_format.file) / 1e6,
        milliseconds=milliseconds,
        difference=float(np.abs(outputs - expected).max() / np.abs(expected).max()),
        cosine=float((_unit_rows(outputs) * _unit_rows(expected)).sum(axis=1).min()),
        same_neighbour=same,
        photos=photos,
        images=images,
    )


def same_neighbours(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Returns the fraction of rows whose nearest other row is the same one in both arrays.

    Args:
        outputs: `[n, ...]`.
        expected: `[n, ...]`. Rows are compared by cosine, within sets of up to 100 rows.
    """
    sets = np.array_split(np.arange(len(expected)), -(-len(expected) // _NEIGHBOUR_SET))
    same = [_nearest(outputs[rows]) == _nearest(expected[rows]) for rows in sets]
    return float(np.concatenate(same).mean())


def _nearest(rows: np.ndarray) -> np.ndarray:
    """Returns the index of each row's nearest other row by cosine."""
    cosines = _unit_rows(rows) @ _unit_rows(rows).T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    rows = rows.reshape(len(rows), -1).astype(np.float64)  # maps too
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def file_size(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


_RECORDED = TypeAdapter(dict[str, Verification])
"""Content of `verification.json`, which may be damaged or somebody else's."""


def read_verifications(export: Path) -> dict[str, dict]:
    """Returns the recorded measurements of the files in an export folder.

    Args:
        export: the export folder.

    Returns:
        `ExportFormat.title` -> the attributes of its `Verification`; {} if there is no readable
        `verification.json`.
    """
    try:
        recorded = _RECORDED.validate_json(read_text(export / FILE_NAME))
    except (OSError, ValueError):
        return {}
    return {
        title: asdict(measured)
        for title, measured in recorded.items()
        if os.path.exists(export / measured.file)
    }


def record_verifications(export: Path, verifications: Sequence[Verification]) -> None:
    """Writes `verification.json`; earlier measurements of other files in the folder are kept.

    Raises:
        OSError: if it can't be written.
    """
    files = {verification.file for verification in verifications}
    recorded = {
        title: measured
        for title, measured in read_verifications(export).items()
        if measured["file"] not in files
    }
    recorded |= {verification.title: asdict(verification) for verification in verifications}
    write_atomically(export / FILE_NAME, json.dumps(recorded, indent=2) + "\n")


def display_title(export_format: ExportFormat, verifications: dict[str, dict]) -> str:
    """Returns a format's title; for an int8 file followed by which of its tensors are int8."""
    int8 = verifications.get(export_format.title, {}).get("int8")
    return export_format.title if int8 is None else f"{export_format.title} ({escape(int8)})"
