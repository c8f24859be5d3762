"""Atomic checkpoint folders: write, list, load the newest valid one, prune.

`checkpoints/epoch-0003/` is the run after three epochs, `epoch-0003-step-000017/` seventeen steps
later. Each is written to a temporary folder, synced, read back and renamed, and is renamed back
before it is removed: a folder with such a name is complete unless something damaged it later.
Nothing points to the newest; it is the valid one with the highest position. A damaged one is moved
to `damaged/`.
"""

import contextlib
import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from byol_tf.errors import RunFolderError
from byol_tf.runs import checkpoint_format
from byol_tf.runs.checkpoint_format import DamagedCheckpoint
from byol_tf.runs.files import atomic_folder, check_no_link, remove_left_overs, temporary_path

_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
LEAST_KEPT = 2
"""Valid checkpoints that are always kept: if the newest is damaged later, there is another one."""

logger = logging.getLogger(__name__)


class LoadedCheckpoint(NamedTuple):
    """Content of a checkpoint.

    Attributes:
        epoch: completed epochs.
        step: completed steps of the epoch after them; 0 at an epoch's end.
        arrays: name -> variable.
        state: the rest of the run's state, as JSON types.
    """

    epoch: int
    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


class Damage(NamedTuple):
    """A checkpoint that can't be used.

    Attributes:
        path: its folder.
        reason: of the damage.
    """

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def write_checkpoint(
    folder: Path,
    epoch: int,
    step: int,
    arrays: Mapping[str, np.ndarray],
    state: dict[str, Any],
    on_progress: Callable[[], object] = lambda: None,
    check_owner: Callable[[], object] = lambda: None,
) -> Path:
    """Writes a checkpoint atomically and reads it back.

    Args:
        folder: of all checkpoints, made if it is missing. No other process writes there.
        epoch: see `LoadedCheckpoint`.
        step: see `LoadedCheckpoint`.
        arrays: see `LoadedCheckpoint`.
        state: see `LoadedCheckpoint`.
        on_progress: called each time that bytes have been written or read back.
        check_owner: raises `RunFolderError` if another process has taken over the run. Called
            before anything is written and again before the checkpoint gets its name.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: if it can't be written. Nothing is left of it then, and the checkpoints before it
            are unchanged.
        DamagedCheckpoint: if the disk returns other bytes than were written; likewise.
        RunFolderError: from `check_owner`; likewise.
    """
    check_owner()
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint_format.sync(folder.parent)
    final = folder / (f"epoch-{epoch:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")
    remove_left_overs(folder)
    with atomic_folder(final) as temporary:
        checkpoint_format.write_files(temporary, epoch, step, arrays, state, on_progress)
        checkpoint_format.verify(temporary, epoch, step, on_progress)
        check_owner()  # the process may have been suspended while it wrote
        if os.path.lexists(final):  # damaged, or the run wouldn't have come here again
            set_aside(final)
    checkpoint_format.sync(folder)
    return final


def remove_old(
    folder: Path, keep: int, is_valid: Callable[[Path], bool], scores: Mapping[int, float]
) -> None:
    """Removes checkpoints older than the newest valid ones, except the best by score.

    Args:
        folder: of all checkpoints.
        keep: how many of the newest valid ones are kept, at least two.
        is_valid: whether a checkpoint's folder holds what was written.
        scores: completed epochs -> accuracy. Of the checkpoints at the end of these epochs the
            one with the highest is kept.
    """
    best = next(iter(_best_first(folder, scores)), None)
    valid = 0
    for path in reversed(list_checkpoints(folder)):
        if valid >= max(keep, LEAST_KEPT) and path != best:
            with contextlib.suppress(OSError):  # it is removed the next time
                # Renamed first, so that a partial deletion isn't read as a damaged checkpoint.
                shutil.rmtree(path.rename(temporary_path(path)))
        else:
            valid += is_valid(path)


def _best_first(folder: Path, scores: Mapping[int, float]) -> list[Path]:
    """Returns the checkpoints at the end of epochs with a score, of equal scores the first first.

    Args:
        folder: of all checkpoints.
        scores: completed epochs -> score; higher is better.
    """
    scored = [
        path
        for path in list_checkpoints(folder)
        if (position := position_of(path))[0] in scores and position[1] == 0
    ]
    return sorted(scored, key=lambda path: -scores[position_of(path)[0]])


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a folder, oldest first."""
    return sorted(
        (path for path in folder.glob("epoch-*") if _NAME.fullmatch(path.name)), key=position_of
    )


def position_of(path: Path) -> tuple[int, int]:
    """Returns (completed epochs, completed steps of the next epoch) from a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"expected the name of a checkpoint's folder; received {path.name}")
    epoch, step = match.groups(default="0")
    return int(epoch), int(step)


def verify(path: Path, on_progress: Callable[[], object] = lambda: None) -> None:
    """Reads a checkpoint completely; raises what `checkpoint_format.verify` does."""
    checkpoint_format.verify(path, *position_of(path), on_progress)


def read_newest(
    folder: Path, scores: Mapping[int, float] | None = None
) -> tuple[LoadedCheckpoint | None, list[Damage]]:
    """Reads the newest valid checkpoint, or the best; changes nothing.

    Another process may write and remove checkpoints meanwhile.

    Args:
        folder: of all checkpoints.
        scores: completed epochs -> score. With any, the one with the highest is read instead.

    Returns:
        The checkpoint, or None where none is valid, and the damage of each newer or better one.

    Raises:
        RunFolderError: if another version of byol_tf wrote the newest.
        OSError: if it can't be read although it may be valid, as where a permission is missing.
    """
    while True:
        damaged: list[Damage] = []
        newest_first = list_checkpoints(folder)[::-1]
        for path in _best_first(folder, scores or {}) or newest_first:
            position = position_of(path)
            try:
                arrays, state = checkpoint_format.read_files(path, *position)
                return LoadedCheckpoint(*position, arrays, state), damaged
            except DamagedCheckpoint as error:
                # Removed while it was read: then there is a newer one. (A dangling link exists.)
                if not os.path.lexists(path):
                    break
                damaged.append(Damage(path, str(error)))
            except RunFolderError as error:
                raise RunFolderError(f"{path}: {error}") from error
        else:
            return None, damaged


def recover(folder: Path, trained_epochs: int = 0) -> LoadedCheckpoint | None:
    """Reads the checkpoint that a run resumes from, and cleans up the folder.

    Temporary files of a killed process are removed; damaged checkpoints newer than the valid one
    are set aside, with a warning for each.

    Args:
        folder: of all checkpoints. No other process writes there.
        trained_epochs: epochs in the run's history, which show that there were checkpoints.

    Returns:
        The checkpoint, or None where the run has none yet.

    Raises:
        RunFolderError: if there are checkpoints and none is valid, or there must have been one and
            there is none, or another version of byol_tf wrote the newest, or the folder is a link.
            Nothing is moved then.
        OSError: as `read_newest`.
    """
    check_no_link(folder)
    # The history lists an epoch before the epoch's checkpoint is written. A process that was killed
    # in between has lost nothing that was saved.
    killed_before_first_save = any(folder.glob(".*.part")) or (
        trained_epochs == 1 and not os.path.lexists(folder)
    )
    remove_left_overs(folder)
    checkpoint, damaged = read_newest(folder)
    if checkpoint is None and not damaged and trained_epochs > 0 and not killed_before_first_save:
        raise RunFolderError(
            f"{folder}: expected checkpoints, as the run's history has {trained_epochs} epoch(s); "
            "found none. Is the disk mounted that they are on? "
            "Restore them, or start another run with --fresh"
        )
    if checkpoint is None and damaged:
        raise RunFolderError(
            f"{folder}: expected a valid checkpoint among {len(damaged)}; received\n"
            + "\n".join(f"  {damage}" for damage in damaged)
            + "\nRestore one from a copy, or start another run with --fresh"
        )
    for damage in damaged:
        try:
            outcome = f"moved to {set_aside(damage.path)}"
        except OSError as error:  # it isn't used in any case
            outcome = f"not moved away: {error}"
        logger.warning("damaged checkpoint, not used: %s; %s", damage, outcome)
    return checkpoint


def set_aside(path: Path) -> Path:
    """Moves a checkpoint to `damaged/` next to it, where it is kept but not read.

    Args:
        path: of the checkpoint.

    Returns:
        Its new path, with a number appended if there is one of that name.

    Raises:
        RunFolderError: if `damaged/` is a link.
        OSError: if it can't be moved.
    """
    damaged = path.parent / "damaged"
    check_no_link(damaged)
    damaged.mkdir(exist_ok=True)
    targets = itertools.chain(
        [damaged / path.name], (damaged / f"{path.name}.{number}" for number in itertools.count(2))
    )
    return path.rename(next(target for target in targets if not os.path.lexists(target)))
