"""What a run leaves behind, and where. Needs no TensorFlow.

```
runs/stl10-2026-11-21-1/
  config.json  environment.json  photos.json.gz  skipped.csv  history.csv  result.json  report.html
  checkpoints/  logs/ (TensorBoard)  figures/ (PNG)
  export/encoder/1/ (SavedModel)  export/encoder.keras
  export/USAGE.md  export/README.md (model card)
```
"""

import contextlib
import csv
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from byol_tf.config.diff import SAME_IMAGES, differences_of_runs, listed
from byol_tf.config.schema import Config
from byol_tf.errors import RunFolderError
from byol_tf.runs.files import (
    SAVED_MODEL_VERSION,
    csv_text,
    remove_left_overs,
    write_atomically,
    write_csv,
)


def read_history(path: Path) -> list[dict[str, float]]:
    """Its rows, one an epoch, the untrained first; empty cells are left out. `OSError` without it,
    `ValueError` if it is something else."""
    with path.open(encoding="utf-8") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


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
"""The file in a run folder that says which process is at it (see `lock.py`)."""


class RunFolder:
    """Paths inside one run's folder. Making the object touches nothing.

    Args:
        root: the folder.
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
        goes_on: bool = False,
    ) -> list[str]:
        """Makes the folder, clears up what a killed process left, and writes what is known before
        the first step.

        `environment.json` has the facts of this start, and under `begun` those of the run's first
        one.

        Args:
            config_text: of the resolved config.
            command: the command line.
            data_fingerprint: of the images.
            skipped: (path, reason) of each that can't be read.
            goes_on: whether the run has a checkpoint. Else it begins here, and what an earlier try
                left of its history goes.

        Returns:
            A line for each version that isn't the one that the run was begun with: the same bits
            can't be promised then.

        Raises:
            RunFolderError: if the folder can't be written.
        """
        facts = environment() | {"command": command, "data_fingerprint": data_fingerprint}
        try:
            self.figures.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.figures, self.export):
                remove_left_overs(folder)
            begun = self._begun() if goes_on else {}
            write_atomically(self.config, config_text)
            write_atomically(
                self.environment,
                json.dumps(facts | ({"begun": begun} if begun else {}), indent=2) + "\n",
            )
            if not goes_on:
                self.history.unlink(missing_ok=True)
            if skipped:
                write_csv(self.skipped, ("path", "reason"), skipped)
        except OSError as error:
            raise RunFolderError(
                f"{self.root}: expected a folder that can be written; received {error}"
            ) from error
        was, now = begun.get("packages", {}), facts["packages"]
        return [
            f"{name}: {was.get(name, 'absent')} when the run was begun, {now.get(name, 'absent')} "
            "now"
            for name in sorted(set(was) | set(now))
            if begun and was.get(name) != now.get(name)
        ]

    def trained_epochs(self) -> int:
        """The last epoch in the history, 0 without one. `RunFolderError` if it can't be read."""
        try:
            rows = read_history(self.history)
            return int(max((row["epoch"] for row in rows), default=0))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunFolderError(
                f"{self.history}: expected the table that a run wrote; received {error}. Name "
                "another --run-dir"
            ) from error

    def list_skipped(self, path: str, reason: str) -> None:
        """Adds a photo that was lost in mid-run to those that couldn't be read from the beginning.
        A full disk is no reason to stop."""
        with contextlib.suppress(OSError), self.skipped.open("a", encoding="utf-8") as file:
            table = csv_text(("path", "reason"), [(path, reason)])
            file.write(table.partition("\n")[2] if file.tell() else table)

    def finished(self) -> dict | None:
        """The result of a finished run, with the folders where it is now, or None. `RunFolderError`
        if it can't be read."""
        result = _json_object(self.result)
        if result is None:
            return None
        moved = {"run_dir": str(self.root), "export_dir": str(self.saved_model)}
        return result | {name: path for name, path in moved.items() if name in result}

    def saved_config(self) -> dict | None:
        """The resolved config that the folder was made with, or None. `RunFolderError` if it can't
        be read.

        A key that byol_tf didn't have then has its default, which does what was done before there
        was one.
        """
        saved = _json_object(self.config)
        if saved is None:
            return None
        try:
            return Config.model_validate(saved).model_dump(mode="json", by_alias=True)
        # of a version with other keys, or changed by hand: as it is, so that differing keys show
        except ValidationError:
            return saved

    def _begun(self) -> dict:
        """What is written of the run's first start, or {}."""
        try:
            last = _json_object(self.environment) or {}
        except RunFolderError:  # a record for people: no run depends on it
            return {}
        return last.get("begun", last)


def choose_folder(
    config: dict, run_dir: str | None, fresh: bool, say: Callable[[str], None] = print
) -> RunFolder:
    """The folder that a command goes on in, or a new one's path.

    Args:
        config: the resolved config, as JSON types.
        run_dir: the folder that the user named; None looks for the newest run of the same config
            under `run.root`.
        fresh: a new numbered folder in any case.
        say: prints a line for people, here on a run that is left unfinished since its config
            differs.

    Raises:
        RunFolderError: if the named folder holds a run of another config (the differing keys are
            listed) or something that is no run.
    """
    if run_dir is not None:
        folder = RunFolder(Path(run_dir))
        saved = folder.saved_config()
        if (
            saved is None
            and folder.root.exists()
            and (
                not folder.root.is_dir() or any(p.name != LOCK_NAME for p in folder.root.iterdir())
            )
        ):
            raise RunFolderError(
                f"--run-dir {run_dir}: expected a new or empty folder, or a run's; it holds "
                "something else"
            )
        differing = (
            [] if saved is None else _incompatible_changes(saved, config, folder.result.exists())
        )
        if fresh and saved is not None:
            raise RunFolderError(
                f"--run-dir {run_dir}: --fresh starts a run anew, and this folder holds one. Leave "
                "one of the two out"
            )
        if differing:
            raise RunFolderError(
                f"--run-dir {run_dir}: this run was begun with another config:\n"
                + "\n".join(listed(differing))
                + "\nGo on with the config it has, or name another folder"
                + _epochs_hint(differing, config)
            )
        return folder
    root, name = Path(config["run"]["root"]), config["name"]
    if not fresh:
        for path in reversed(_numbered(root, name)):
            saved = RunFolder(path).saved_config()
            if saved is not None and not differences_of_runs(saved, config):
                return RunFolder(path)
    prefix = f"{name}-{datetime.date.today().isoformat()}-"
    taken = [
        int(path.name.removeprefix(prefix))
        for path in _numbered(root, name)
        if path.name.startswith(prefix)
    ]
    folder = RunFolder(root / f"{prefix}{max(taken, default=0) + 1}")
    if not fresh and (others := _numbered(root, name)):
        unfinished = RunFolder(others[-1])
        saved = unfinished.saved_config()
        if saved is not None and not unfinished.result.exists():
            say(
                f"{unfinished.root} isn't finished, and was begun with another config; "
                f"{folder.root} begins anew:"
            )
            for line in listed(differences_of_runs(saved, config)):
                say(line)
    return folder


def _json_object(path: Path) -> dict | None:
    """What a run wrote, or None. `RunFolderError` if it can't be read or is something else."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path}: expected the JSON that a run wrote; received {error}. Name another --run-dir"
        ) from error
    if not isinstance(content, dict):
        raise RunFolderError(
            f"{path}: expected the JSON object that a run wrote; received {content!r:.40}. Name "
            "another --run-dir"
        )
    return content


def environment() -> dict:
    """Versions, machine and git state, as JSON types."""
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
    """`git describe` of the code that runs, with `-dirty` where it was changed; None outside a
    repository."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _numbered(root: Path, name: str) -> list[Path]:
    """Run folders of this name, oldest first."""
    pattern = re.compile(rf"{re.escape(name)}-(\d{{4}}-\d{{2}}-\d{{2}})-(\d+)")
    found = [
        (match[1], int(match[2]), path)
        for path in root.glob(f"{name}-*")
        if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, _, path in sorted(found)]


def _incompatible_changes(saved: dict, config: dict, finished: bool) -> list[tuple[str, str, str]]:
    """What differs, where that keeps a config from going on with the run that the user named.

    More epochs don't if each step done would have been the same with them, nor does another place
    of the images; but a finished run looks at none, so that other ones wouldn't be noticed.
    """
    differing = differences_of_runs(saved, config)
    keys = {key for key, _, _ in differing} - set(SAME_IMAGES)
    longer = (
        keys == {"training.epochs"}
        and config["training"]["epochs"] > saved["training"]["epochs"]
        and _scheduled(config) is None
    )
    return [] if longer or (not keys and not finished) else differing


def _epochs_hint(differing: list[tuple[str, str, str]], config: dict) -> str:
    """What to add where the number of epochs is among what differs."""
    if "training.epochs" not in [key for key, _, _ in differing] or _scheduled(config) is None:
        return ""
    return (
        ". A run may get more epochs only where no schedule ends with the last one, and "
        f"{_scheduled(config)}"
    )


def _scheduled(config: dict) -> str | None:
    """A schedule that runs to the last epoch, so that with more epochs all its values would have
    been others; None if there is none."""
    predictor, tau = config["predictor"], config["tau"]
    if config["optimizer"]["schedule"] != "constant" or predictor["schedule"] not in (
        None,
        "constant",
    ):
        return "the learning rate's does (optimizer.schedule, predictor.schedule)"
    if config["objective"]["target"] == "ema" and tau["schedule"] != "constant":
        return "tau's does (tau.schedule)"
    return None
