"""A run's folder: its files, what is written at a start, and which folder a command uses.

```
runs/stl10-2026-11-21-1/
  config.json  environment.json  photos.json.gz  skipped.csv  history.csv  result.json  report.html
  checkpoints/  logs/ (TensorBoard)  figures/ (PNG)  evaluation/ (results of byol_tf.evaluate)
  export/encoder/1/ (SavedModel)  export/encoder.keras
  export/USAGE.md  export/README.md (model card)
```
"""

import contextlib
import datetime
import json
import logging
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from byol_tf.config.diff import SAME_IMAGES, differences_of_runs, listed
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError
from byol_tf.runs.files import (
    SAVED_MODEL_VERSION,
    append_to,
    check_no_link,
    csv_text,
    read_csv,
    read_json_object,
    remove_left_overs,
    why_no_folder,
    write_atomically,
    write_csv,
)

logger = logging.getLogger(__name__)


def read_history(path: Path) -> list[dict[str, float]]:
    """Reads a `history.csv`.

    Args:
        path: of the file.

    Returns:
        Its rows, one an epoch, that of the untrained network first; without empty cells.

    Raises:
        OSError: if there is no such file, or it can't be read.
        ValueError: if it is something else.
    """
    rows = []
    for row in read_csv(path, ("epoch",)):
        try:
            rows.append({name: float(value) for name, value in row.items() if value})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not math.isfinite(rows[-1].get("epoch", math.nan)):
            raise ValueError(f"{path}: expected the number of an epoch; received {row['epoch']!r}")
    return rows


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


_PACKAGES = (
    "byol-tf",
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-tpu",
    "keras",
    "keras-cv",
    "tensorflow-datasets",
    "numpy",
    "scikit-learn",
    "pillow",
    "pillow-heif",
)


LOCK_NAME = ".lock"
"""Name of the lock file in a run folder (see `lock.py`)."""
SKIPPED_COLUMNS = ("path", "reason")
RESULT_FIGURES = frozenset(("epochs", "steps", "seconds", "images_per_second", "pretrain_images"))
"""Numbers in the `result.json` of every finished run."""
_MEASURES = frozenset(
    (
        "projection_std",
        "probe_accuracy",
        "untrained_probe_accuracy",
        "knn_accuracy",
        "untrained_knn_accuracy",
        "supervised_accuracy",
    )
)
"""Numbers there that are null where nothing was measured."""


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

    def begin(
        self,
        config_text: str,
        command: list[str],
        data_fingerprint: str,
        skipped: tuple[tuple[str, str], ...],
        resumed: bool = False,
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

        Returns:
            A line for each package whose version differs from that of the run's first start:
            bit-identical results can't be promised then.

        Raises:
            RunFolderError: if the folder can't be written.
        """
        start = environment() | {"command": command, "data_fingerprint": data_fingerprint}
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
            if skipped:
                write_csv(self.skipped, SKIPPED_COLUMNS, skipped)
            else:
                self._remove_damaged_skipped()
        except OSError as error:
            raise RunFolderError(
                f"{self.root}: expected a folder that can be written; received {error}"
            ) from error
        first, current = first_start.get("packages", {}), start["packages"]
        return [
            f"{name}: {first.get(name, 'absent')} when the run was started, "
            f"{current.get(name, 'absent')} now"
            for name in sorted(set(first) | set(current))
            if first_start and first.get(name) != current.get(name)
        ]

    def _remove_damaged_skipped(self) -> None:
        """Removes a `skipped.csv` that is no table, which nothing could be added to."""
        try:
            read_csv(self.skipped, SKIPPED_COLUMNS)
        except FileNotFoundError:
            return
        except ValueError:
            self.skipped.unlink()

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
        """Appends a photo that became unreadable during the run to `skipped.csv`.

        A full disk is ignored, as it is no reason to stop.

        Args:
            path: of the photo.
            reason: of the failure.
        """
        with contextlib.suppress(OSError), append_to(self.skipped) as file:
            table = csv_text(SKIPPED_COLUMNS, [(path, reason)])
            file.write((table.partition("\n")[2] if file.tell() else table).encode())

    def finished(self) -> dict[str, Any] | None:
        """Returns the content of `result.json`, with the present paths of a moved folder.

        Returns:
            The result; None while the run isn't finished.

        Raises:
            RunFolderError: if the file can't be read, or isn't what a run wrote.
        """
        result = _json_object(self.result)
        if result is None:
            return None
        for key in (RESULT_FIGURES | _MEASURES) & result.keys():
            if not isinstance(result[key], int | float | None) or (
                result[key] is None and key in RESULT_FIGURES
            ):
                raise RunFolderError(
                    f"{self.result}: expected the result that a run wrote, with a number {key}; "
                    f"received {result[key]!r:.40}. Remove it, and the same training command "
                    "writes it again"
                )
        paths = {"run_dir": str(self.root), "export_dir": str(self.saved_model)}
        return result | {key: path for key, path in paths.items() if key in result}

    def saved_config(self) -> dict[str, Any] | None:
        """Returns the resolved config that the folder was made with.

        A key that byol_tf didn't have then has its default, which does what was done before the
        key was added.

        Returns:
            The config as JSON types; None where there is none.

        Raises:
            RunFolderError: if the file can't be read.
        """
        saved = _json_object(self.config)
        if saved is None:
            return None
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


@contextlib.contextmanager
def claimed_folder(config: dict[str, Any], run_dir: str | None, fresh: bool) -> Iterator[RunFolder]:
    """Chooses a run's folder and, if it is new, makes it for this run alone.

    Of several processes that choose the same number at the same time one makes the folder, and the
    others take the next numbers. A new folder has its `config.json` from the beginning. If the run
    fails before it has begun, the folder is removed again.

    Args:
        config: as of `choose_folder`, and so are the others.
        run_dir: the folder that the user named, or None.
        fresh: whether to start a new run in any case.

    Yields:
        The folder.

    Raises:
        RunFolderError: as of `choose_folder`, or if the folder can't be made.
    """
    folder, is_new = _choose(config, run_dir, fresh)
    made: list[Path] = []
    try:
        if is_new:
            made = _make_parents(folder.root)
            while not (is_mine := _make(folder.root)) and run_dir is None:
                folder = RunFolder(_next_number(folder.root))
            if is_mine:
                made.insert(0, folder.root)
                text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
                write_atomically(folder.config, text)
    except OSError as error:
        _remove_unused(folder, made)
        raise RunFolderError(
            f"{folder.root}: expected a folder that can be written; received {error}"
        ) from error
    try:
        yield folder
    except BaseException:
        if not folder.environment.exists():
            _remove_unused(folder, made)
        raise


def _make_parents(root: Path) -> list[Path]:
    """Makes the folders above a run's; returns those that weren't there, the lowest first."""
    missing = [parent for parent in root.parents if not parent.exists()]
    root.parent.mkdir(parents=True, exist_ok=True)
    return missing


def _make(root: Path) -> bool:
    """Makes a folder; returns whether it is new."""
    try:
        root.mkdir()
    except FileExistsError:
        return False
    return True


def _next_number(root: Path) -> Path:
    prefix, _, number = root.name.rpartition("-")
    return root.with_name(f"{prefix}-{int(number) + 1}")


def _remove_unused(folder: RunFolder, made: list[Path]) -> None:
    """Removes the folders that this process has made for a run which hasn't begun."""
    with contextlib.suppress(OSError):
        if folder.root in made:
            for path in (folder.config, folder.root / LOCK_NAME):
                path.unlink(missing_ok=True)
        for path in made:
            path.rmdir()


def choose_folder(config: dict[str, Any], run_dir: str | None, fresh: bool) -> RunFolder:
    """Chooses the folder of the run to resume, or a path for a new one.

    Args:
        config: the resolved config, as JSON types.
        run_dir: the folder that the user named; None for the newest run of the same config under
            `run.root`.
        fresh: whether to start a new run in a new numbered folder in any case.

    Returns:
        The folder. It isn't made here.

    Raises:
        RunFolderError: if the named folder holds a run of another config (the differing keys are
            listed) or something that is no run.
    """
    return _choose(config, run_dir, fresh)[0]


def _choose(config: dict[str, Any], run_dir: str | None, fresh: bool) -> tuple[RunFolder, bool]:
    """Returns the folder that `choose_folder` does, and whether it has to be made."""
    if run_dir is not None:
        folder = _named_folder(config, run_dir, fresh)
        return folder, not folder.root.exists()
    root, name = Path(config["run"]["root"]), config["name"]
    if reason := why_no_folder(root):
        raise RunFolderError(f"run.root: expected a folder, new or not; received {root}: {reason}")
    earlier_runs = _numbered_runs(root, name)
    if not fresh:
        for path in reversed(earlier_runs):
            saved = RunFolder(path).saved_config()
            if saved is not None and not differences_of_runs(saved, config):
                return RunFolder(path), False
    prefix = f"{name}-{datetime.date.today().isoformat()}-"
    taken = [
        int(path.name.removeprefix(prefix)) for path in earlier_runs if path.name.startswith(prefix)
    ]
    folder = RunFolder(root / f"{prefix}{max(taken, default=0) + 1}")
    if not fresh and earlier_runs:
        _log_unfinished(RunFolder(earlier_runs[-1]), folder, config)
    return folder, True


def _named_folder(config: dict[str, Any], run_dir: str, fresh: bool) -> RunFolder:
    """Returns the folder that the user named; raises if this config can't run there."""
    folder = RunFolder(Path(run_dir))
    if (reason := why_no_folder(folder.root)) and not os.path.isfile(run_dir):
        raise RunFolderError(f"--run-dir {run_dir}: expected a folder, new or not; {reason}")
    saved = folder.saved_config()
    if saved is None:
        if folder.root.exists() and not _is_empty(folder.root):
            raise RunFolderError(
                f"--run-dir {run_dir}: expected a new or empty folder, or a run's; it holds "
                "something else"
            )
        return folder
    if fresh:
        raise RunFolderError(
            f"--run-dir {run_dir}: --fresh starts a new run, and this folder holds one. Leave "
            "one of the two out"
        )
    check_same_run(folder, config, f"--run-dir {run_dir}")
    return folder


def check_same_run(folder: RunFolder, config: dict[str, Any], name: str = "") -> None:
    """Checks that a config resumes the run in a folder; one without a run takes any config.

    Args:
        folder: of the run.
        config: the resolved config, as JSON types.
        name: of the folder in the message; by default its path.

    Raises:
        RunFolderError: if the folder's run has another config; the differing keys are listed.
    """
    saved = folder.saved_config()
    if saved is None:
        return
    if differing := _incompatible_changes(saved, config, folder.result.exists()):
        raise RunFolderError(
            f"{name or folder.root}: this run was started with another config:\n"
            + "\n".join(listed(differing))
            + "\nResume it with the config it has, or name another folder"
            + _epochs_hint(differing, config)
        )


def _is_empty(root: Path) -> bool:
    """Returns whether a path is a folder that holds at most a lock file."""
    return root.is_dir() and all(path.name == LOCK_NAME for path in root.iterdir())


def _log_unfinished(earlier: RunFolder, folder: RunFolder, config: dict[str, Any]) -> None:
    """Logs that the earlier run isn't resumed, if it isn't finished, and the keys that differ."""
    saved = earlier.saved_config()
    if saved is None or earlier.result.exists():
        return
    logger.info(
        "%s isn't finished, and was started with another config; %s is a new run:",
        earlier.root,
        folder.root,
    )
    for line in listed(differences_of_runs(saved, config)):
        logger.info("%s", line)


def _json_object(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None where there is no file, `RunFolderError` if it can't be read."""
    try:
        return read_json_object(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path}: expected the JSON that a run wrote; received {error}. Name another --run-dir"
        ) from error


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


def _numbered_runs(root: Path, name: str) -> list[Path]:
    """Returns the run folders of a name, oldest first."""
    pattern = re.compile(rf"{re.escape(name)}-(\d{{4}}-\d{{2}}-\d{{2}})-(\d+)")
    runs = [
        (match[1], int(match[2]), path)
        for path in root.glob(f"{name}-*")
        if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, _, path in sorted(runs)]


def _incompatible_changes(
    saved: dict[str, Any], config: dict[str, Any], finished: bool
) -> list[tuple[str, str, str]]:
    """Returns the differing keys, if they keep a config from resuming the run that the user named.

    More epochs are compatible if each completed step would have been the same with them, and so is
    another location of the images: a checkpoint has their fingerprint. But a finished run opens no
    images, so that other ones wouldn't be noticed.
    """
    differing = differences_of_runs(saved, config)
    keys = {key for key, _, _ in differing} - set(SAME_IMAGES)
    longer = (
        keys == {"training.epochs"}
        and config["training"]["epochs"] > saved["training"]["epochs"]
        and _schedule_bound_to_epochs(config) is None
    )
    return [] if longer or (not keys and not finished) else differing


def _epochs_hint(differing: list[tuple[str, str, str]], config: dict[str, Any]) -> str:
    """Returns why the number of epochs can't change, as the end of a message; "" if it can."""
    schedule = _schedule_bound_to_epochs(config)
    if schedule is None or "training.epochs" not in [key for key, _, _ in differing]:
        return ""
    return (
        f". A run may get more epochs only where no schedule ends with the last one, and {schedule}"
    )


def _schedule_bound_to_epochs(config: dict[str, Any]) -> str | None:
    """Names a schedule that runs to the last epoch; None if there is none.

    With more epochs all its values so far would have been others.
    """
    predictor, tau = config["predictor"], config["tau"]
    if config["optimizer"]["schedule"] != "constant" or predictor["schedule"] not in (
        None,
        "constant",
    ):
        return "the learning rate's does (optimizer.schedule, predictor.schedule)"
    if config["objective"]["target"] == "ema" and tau["schedule"] != "constant":
        return "tau's does (tau.schedule)"
    return None
