"""Exported files are loaded again where byol_tf isn't, and compared with the run's own encoder."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

from byol_tf.errors import VerificationError
from byol_tf.export import verification_worker as proof_child
from byol_tf.export.formats import ExportFormat
from byol_tf.export.usage import snippet


def link_packages(modules: Iterable[str], folder: Path) -> None:
    """Fills a folder with links to the packages that some modules come from, and to all that these
    require.

    Args:
        modules: top-level names to import, such as `numpy`; one that isn't installed is left out.
        folder: a new one.
    """
    folder.mkdir()
    providers = metadata.packages_distributions()
    waiting, done = [name for module in modules for name in providers.get(module, ())], set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # required on other systems
            continue
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(distribution.locate_file(top)).resolve())
        plain = [
            line for line in distribution.requires or () if not re.search(r";.*\bextra\s*==", line)
        ]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in plain]


# seconds, of a process that needs some ten with a small encoder: 9 s a photo, for the largest on
# few cores
_TIMEOUT = 2700.0
_FEWEST_NEIGHBOURS = 20  # below that one photo would decide
_SET = 100
"""Neighbours are looked for among so many: the more images, the nearer to each other are the
nearest two, and the less says it which is."""


@dataclass(frozen=True)
class Verification:
    """What was measured of one form.

    Attributes:
        name: of its file or folder.
        what: its heading.
        megabytes: of the file or folder, 10^6 bytes.
        milliseconds: a photo, the median, one at a time on this machine's CPU, resize included,
            reading the file not.
        difference: largest one from the run's own representations, as a share of their largest
            value.
        cosine: the smallest one.
        same_neighbour: share of the source's images whose nearest neighbour, among 100 of them, is
            the same one; None where there were too few.
        photos: how many photos of odd sizes there were.
        images: and how many of the source's.
        int8: what of an int8 file is int8 (see `litert.py`); None for any other.
    """

    name: str
    what: str
    megabytes: float
    milliseconds: float
    difference: float
    cosine: float
    same_neighbour: float | None
    photos: int
    images: int
    int8: str | None = None

    def failures(self, form: ExportFormat) -> list[str]:
        """What isn't as near as the form has to be, in words."""
        failures = []
        if not self.difference <= form.difference:
            failures.append(
                f"largest difference {self.difference:.2g} of the largest value; at most "
                f"{form.difference:g} passes"
            )
        if not self.cosine >= form.cosine:
            failures.append(f"smallest cosine {self.cosine:.6f}; at least {form.cosine:g} passes")
        if self.same_neighbour is not None and not self.same_neighbour >= form.same_neighbour:
            kept = f"{self.same_neighbour:.1%} of {self.images} images keep their nearest neighbour"
            failures.append(f"{kept}; at least {form.same_neighbour:.0%} passes")
        return failures

    def facts(self) -> dict:
        """As JSON types."""
        return asdict(self)


def verify(
    forms: Sequence[ExportFormat],
    folder: Path,
    size: int,
    photos: Sequence[np.ndarray],
    images: Sequence[np.ndarray],
    expected: np.ndarray,
) -> list[Verification]:
    """Loads forms of one format in a fresh process, by their snippets, and compares what they give.

    Args:
        forms: of one format.
        folder: that holds their files.
        size: side of the encoder's input.
        photos: of odd sizes, uint8 `[H, W, 3]`.
        images: of the source, whose nearest neighbours are compared; there may be none.
        expected: float32 `[photos + images, d]`, the run's own representations.

    Raises:
        VerificationError: if that process fails.
    """
    with tempfile.TemporaryDirectory() as temporary:
        room = Path(temporary)
        files = [
            _written(room / f"{number:04d}.png", pixels)
            for number, pixels in enumerate((*photos, *images))
        ]
        (folder / "photo.jpg").unlink(missing_ok=True)
        Image.fromarray(photos[0]).save(folder / "photo.jpg")
        link_packages(forms[0].modules, room / "packages")
        snippets = {
            f"{number}": (snippet(form, size), "bytes" if form.snippet == "bytes" else "image")
            for number, form in enumerate(forms)
        }
        job = {
            "packages": str(room / "packages"),
            "folder": str(folder),
            "snippets": snippets,
            "photos": files,
            "out": str(room),
        }
        (room / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run(room / "job.json", forms[0].format)
        times = json.loads((room / "times.json").read_text(encoding="utf-8"))
        outputs = [np.load(room / f"{number}.npy") for number in range(len(forms))]
    return [
        _compared(
            form, folder, times[f"{number}"], outputs[number], expected, len(photos), len(images)
        )
        for number, form in enumerate(forms)
    ]


def _written(path: Path, pixels: np.ndarray) -> str:
    Image.fromarray(pixels).save(path, compress_level=1)
    return str(path)


def _run(job: Path, what: str) -> None:
    # On the CPU: a GPU rounds its convolutions, which would be compared instead of the files.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    line = [sys.executable, "-I", "-S", proof_child.__file__, str(job)]
    try:
        done = subprocess.run(
            line,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"{what}: no answer in {_TIMEOUT:g} s") from error
    if done.returncode:
        said = [text for text in done.stderr.splitlines() if text.strip()] or [
            f"exit code {done.returncode}"
        ]
        raise VerificationError(f"{what}: {said[-1]}")


def _compared(
    form: ExportFormat,
    folder: Path,
    milliseconds: float,
    outputs: np.ndarray,
    expected: np.ndarray,
    photos: int,
    images: int,
) -> Verification:
    if outputs.shape != expected.shape:
        raise VerificationError(
            f"{form.name}: expected {list(expected.shape)} numbers; received {list(outputs.shape)}"
        )
    same = None
    if images >= _FEWEST_NEIGHBOURS:
        same = same_neighbours(outputs[photos:], expected[photos:])
    return Verification(
        name=form.name,
        what=form.what,
        megabytes=_bytes(folder / form.name) / 1e6,
        milliseconds=milliseconds,
        difference=float(np.abs(outputs - expected).max() / np.abs(expected).max()),
        cosine=float((_directions(outputs) * _directions(expected)).sum(axis=1).min()),
        same_neighbour=same,
        photos=photos,
        images=images,
    )


def same_neighbours(outputs: np.ndarray, expected: np.ndarray) -> float:
    """The share of rows whose nearest other row by cosine is the same one in both `[n, d]`, looked
    for in sets of up to 100 rows."""
    sets = np.array_split(np.arange(len(expected)), -(-len(expected) // _SET))
    return float(
        np.mean(
            np.concatenate(
                [_neighbours(outputs[rows]) == _neighbours(expected[rows]) for rows in sets]
            )
        )
    )


def _directions(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float64)
    return features / np.maximum(
        np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny
    )


def _neighbours(features: np.ndarray) -> np.ndarray:
    """The index of each row's nearest other row, by cosine."""
    cosines = _directions(features) @ _directions(features).T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def _bytes(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if path.is_dir()
        else path.stat().st_size
    )
