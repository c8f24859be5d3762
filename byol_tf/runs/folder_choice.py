"""Choice of a run's folder: that of an earlier start to resume, or a new one."""

import contextlib
import datetime
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from byol_tf.config.diff import LOCATIONS, differences_of_runs, listed
from byol_tf.errors import RunFolderError
from byol_tf.runs.files import why_no_folder, write_atomically
from byol_tf.runs.folder import LOCK_NAME, RunFolder
from byol_tf.runs.process_exit import register_exit_hook, unregister_exit_hook

logger = logging.getLogger(__name__)


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

    def remove_unused() -> None:
        if not folder.environment.exists():
            _remove_unused(folder, made)

    register_exit_hook(remove_unused)  # a signal or another worker's failure unwinds nothing
    try:
        yield folder
    except BaseException:
        remove_unused()
        raise
    finally:
        unregister_exit_hook(remove_unused)


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


def _is_empty(root: Path) -> bool:
    """Returns whether a path is a folder that holds at most a lock file."""
    return root.is_dir() and all(path.name == LOCK_NAME for path in root.iterdir())


def _numbered_runs(root: Path, name: str) -> list[Path]:
    """Returns the run folders of a name, oldest first."""
    pattern = re.compile(rf"{re.escape(name)}-(\d{{4}}-\d{{2}}-\d{{2}})-(\d+)")
    runs = [
        (match[1], int(match[2]), path)
        for path in root.glob(f"{name}-*")
        if (match := pattern.fullmatch(path.name))
    ]
    return [path for _, _, path in sorted(runs)]


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


def _incompatible_changes(
    saved: dict[str, Any], config: dict[str, Any], finished: bool
) -> list[tuple[str, str, str]]:
    """Returns the differing keys, if they keep a config from resuming the run that the user named.

    More epochs are compatible if each completed step would have been the same with them, and so is
    another location of images or teacher: a checkpoint has their fingerprints. But a finished run
    opens neither, so that other ones wouldn't be noticed.
    """
    differing = differences_of_runs(saved, config)
    keys = {key for key, _, _ in differing} - set(LOCATIONS)
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
