"""A run's folder: its files, and what is written at a start (its choice: `folder_choice.py`).

```
runs/stl10-2026-11-21-1/
  config.json  environment.json  photos.json.gz  skipped.csv  history.csv  result.json  report.html
  encoder.json (layers of an encoder from Python)  trackers.json  .lock
  checkpoints/  logs/ (TensorBoard, tensorflow.log)  figures/ (PNG)
  evaluation/ (results of byol_tf.evaluate)
  export/encoder/1/ (SavedModel)  export/encoder.keras
  export/USAGE.md  export/README.md (model card)  export/verification.json
  export/input.json (channels, depth and range, unless RGB)  export/map/ (dense features)
```
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import ValidationError

from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError, describe_path
from byol_tf.runs.files import (
    SAVED_MODEL_VERSION,
    append_to,
    check_no_link,
    csv_text,
    read_csv,
    read_json_object,
    remove_left_overs,
    write_atomically,
    write_csv,
)

_PACKAGES = (
    "byol-tf",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-tpu",
    "tf-nightly",
    "keras",
    "keras-nightly",
    "keras-cv",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
    "pillow",
    "pillow-heif",
)
"""Packages whose versions are in `environment.json`."""
LOCK_NAME = ".lock"
"""Name of the lock file in a run folder (see `lock.py`)."""
SKIPPED_COLUMNS = ("path", "reason")
RESULT_FIGURES = frozenset(("epochs", "steps", "seconds", "images_per_second", "pretrain_images"))
"""Numbers in the `result.json` of every finished run."""
_MEASURES = frozenset(
    (
        "loss",
        "projection_std",
        "projection_cosine",
        "effective_rank",
        "probe_accuracy",
        "untrained_probe_accuracy",
        "knn_accuracy",
        "untrained_knn_accuracy",
        "supervised_accuracy",
        "test_images",
        "exported_epoch",
        "chance",
        "skipped_steps",
        "leaked_test_images",
    )
)
"""Numbers there that are null where nothing was measured."""
_TEXTS = frozenset(("system", "probe_split", "weights_digest"))


def is_figure(value: object) -> TypeGuard[float]:
    """Returns whether a value of a file is a number that counts or measures: finite, to 2^53."""
    return isinstance(value, int | float) and abs(value) <= 2**53  # false for NaN


def read_history(path: Path) -> list[dict[str, float]]:
    """Reads a `history.csv`.

    Args:
        path: of the file.

    Returns:
        Its rows, one an epoch, that of the untrained network first; without cells that are empty
        or no finite number.

    Raises:
        OSError: if there is no such file, or it can't be read.
        ValueError: if it is something else.
    """
    rows: list[dict[str, float]] = []
    for row in read_csv(path, ("epoch",)):
        try:
            numbers = {name: float(value) for name, value in row.items() if value}
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        previous = rows[-1]["epoch"] if rows else -1.0
        epoch = numbers.get("epoch", previous)
        if not is_figure(epoch) or epoch <= previous:
            raise ValueError(
                f"{path}: expected the number of an epoch after {previous:g}; received "
                f"{row['epoch']!r:.40}"
            )
        rows.append({name: number for name, number in numbers.items() if is_figure(number)})
    return rows


def read_result(path: Path) -> dict[str, Any]:
    """Reads a `result.json`, of a run or of an evaluation.

    Raises:
        OSError: if there is no such file, or it can't be read.
        ValueError: if it is something else.
    """
    result = read_json_object(path)
    for key, value in result.items():
        if key in RESULT_FIGURES | _MEASURES:
            fits, expected = is_figure(value) or (value is None and key in _MEASURES), "number"
        else:
            fits, expected = isinstance(value, str) or key not in _TEXTS, "text"
        if not fits:
            raise ValueError(f"{path}: expected a {expected} {key}; received {value!r:.40}")
    return result


def read_environment(path: Path) -> dict[str, Any]:
    """Reads an `environment.json`.

    Raises:
        OSError: if there is no such file, or it can't be read.
        ValueError: if it is something else.
    """
    content = read_json_object(path)
    for record in (content, content.get("begun", {})):
        for key, expected in (("packages", dict), ("command", list)):
            value = record.get(key, expected()) if isinstance(record, dict) else None
            if not isinstance(value, expected) or not all(isinstance(word, str) for word in value):
                raise ValueError(f"{path}: expected the {key} of a run; received {value!r:.40}")
    return content


class RunFolder:
    """Paths inside a run's folder, and the files that are written at a start.

    Making the object reads and writes nothing.

    Args:
        root: the folder.

    Example:
        >>> RunFolder(Path("runs/demo-2026-11-21-1")).history.name
        'history.csv'
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.config = self.root / "config.json"
        self.architecture = self.root / "encoder.json"
        self.environment = self.root / "environment.json"
        self.skipped = self.root / "skipped.csv"
        self.photos = self.root / "photos.json.gz"
        self.history = self.root / "history.csv"
        self.result = self.root / "result.json"
        self.report = self.root / "report.html"
        self.checkpoints = self.root / "checkpoints"
        self.logs = self.root / "logs"
        self.figures = self.root / "figures"
        self.export = self.root / "export"
        self.saved_model = self.export / "encoder" / SAVED_MODEL_VERSION
        self._listed: set[str] = set()  # in skipped.csv, from `begin` on

    def begin(
        self,
        config_text: str,
        command: list[str],
        data_fingerprint: str,
        skipped: tuple[tuple[str, str], ...],
        resumed: bool = False,
        precision: str = "float32",
    ) -> list[str]:
        """Makes the folder and writes what is known before the first step.

        Temporary files of a killed process are removed. `environment.json` describes this start,
        and under `begun` the run's first one.

        Args:
            config_text: the resolved config, as JSON.
            command: the command line.
            data_fingerprint: of the images.
            skipped: (path, reason) of each image that can't be read.
            resumed: whether the run has a checkpoint. Else it starts here, and the history of an
                earlier attempt is removed.
            precision: of the networks' computation.

        Returns:
            A line for each package whose version differs from that of the run's first start, and
            for another precision: bit-identical results can't be promised then.

        Raises:
            RunFolderError: if the folder can't be written.
        """
        start = environment() | {
            "command": command,
            "data_fingerprint": data_fingerprint,
            "precision": precision,
        }
        try:
            for folder in (self.figures, self.export, self.logs):
                check_no_link(folder)
            self.figures.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.figures, self.export):
                remove_left_overs(folder)
            first_start = self._first_start() if resumed else {}
            write_atomically(self.config, config_text)
            write_atomically(
                self.environment,
                json.dumps(start | ({"begun": first_start} if first_start else {}), indent=2)
                + "\n",
            )
            if not resumed:
                self.history.unlink(missing_ok=True)
            self._begin_skipped(skipped, resumed)
        except OSError as error:
            raise RunFolderError(
                f"{self.root}: expected a folder that can be written; received {error}"
            ) from error
        if not first_start:
            return []
        first, current = (
            each.get("packages", {}) | {"precision": each.get("precision", precision)}
            for each in (first_start, start)
        )
        return [
            f"{name}: {first.get(name, 'absent')} when the run was started, "
            f"{current.get(name, 'absent')} now"
            for name in sorted(set(first) | set(current))
            if first.get(name) != current.get(name)
        ]

    def _begin_skipped(self, skipped: Sequence[tuple[str, str]], resumed: bool) -> None:
        """Writes `skipped.csv`; a resumed run keeps what is listed there, if it is a table."""
        listed = dict(skipped)
        if resumed:
            with contextlib.suppress(FileNotFoundError, ValueError):
                rows = read_csv(self.skipped, SKIPPED_COLUMNS)
                listed |= {row["path"]: row["reason"] for row in rows}
        if listed:
            write_csv(self.skipped, SKIPPED_COLUMNS, listed.items())
        else:
            self.skipped.unlink(missing_ok=True)
        self._listed = set(listed)

    def trained_epochs(self) -> int:
        """Returns the last epoch in the history; 0 where there is none.

        Raises:
            RunFolderError: if the file can't be read.
        """
        try:
            rows = read_history(self.history)
            return int(max((row["epoch"] for row in rows), default=0))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{self.history}: expected the table that a run wrote; received {error}. Remove "
                "it, and the resumed run writes it again from its checkpoint"
            ) from error

    def list_skipped(self, path: str, reason: str) -> None:
        """Appends a photo that can't be read to `skipped.csv`, unless it is listed there.

        A full disk is ignored, as it is no reason to stop. Several threads may call this.

        Args:
            path: of the photo.
            reason: of the failure.
        """
        if path in self._listed:
            return
        self._listed.add(path)
        with contextlib.suppress(OSError), append_to(self.skipped) as file:
            table = csv_text(SKIPPED_COLUMNS, [(path, reason)])
            file.write((table.partition("\n")[2] if file.tell() else table).encode())

    def count_skipped(self) -> int:
        """Returns the number of photos that this run has listed in `skipped.csv`."""
        return len(self._listed)

    def finished(self) -> dict[str, Any] | None:
        """Returns the content of `result.json`, with the present paths of a moved folder.

        Returns:
            The result; None while the run isn't finished.

        Raises:
            RunFolderError: if the file can't be read, or isn't what a run wrote.
        """
        try:
            result = read_result(self.result)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.result}: expected the result that a run wrote; received {error}. Remove "
                "it, and the same training command writes it again"
            ) from error
        paths = {"run_dir": str(self.root), "export_dir": str(self.saved_model)}
        return result | {key: path for key, path in paths.items() if key in result}

    def require_config(self) -> None:
        """Raises `RunFolderError` if this is no run folder: it has no config."""
        if not os.path.isfile(self.config):
            raise RunFolderError(
                f"--run {self.root}: expected a run folder, with a config.json; "
                f"{describe_path(self.config, 'found none there')}"
            )

    def saved_config(self) -> dict[str, Any] | None:
        """Returns the resolved config that the folder was made with.

        A key that byol_tf didn't have then has its default, which does what was done before the
        key was added.

        Returns:
            The config as JSON types; None where there is none.

        Raises:
            RunFolderError: if the file can't be read.
        """
        try:
            saved = read_json_object(self.config)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.config}: expected the JSON that a run wrote; received {error}. Name "
                "another --run-dir"
            ) from error
        try:
            return Config.model_validate(saved).model_dump(mode="json", by_alias=True)
        # Of a version with other keys, or edited: as it is, so that the differing keys are listed.
        except ValidationError:
            return saved

    def _first_start(self) -> dict[str, Any]:
        """Returns what `environment.json` has on the run's first start, or {}."""
        try:
            last = read_environment(self.environment)
        except (OSError, ValueError):  # a record that no run depends on
            return {}
        return last.get("begun", last)


def environment() -> dict[str, Any]:
    """Returns versions, machine and git state, as JSON types."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "packages": versions,
        "git": _git_state(),
        "executable": Path(sys.executable).name,
    }


def _git_state() -> str | None:
    """Returns `git describe` of the running code, with `-dirty` where it was changed.

    None outside a repository.
    """
    command = ["git", "describe", "--always", "--dirty"]
    try:
        completed = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return completed.stdout.strip()
