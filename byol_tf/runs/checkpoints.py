"""Checkpoints in a run folder: put there whole, found by looking, removed in order. Needs no
TensorFlow.

`checkpoints/epoch-0003/` is the run after three epochs, `epoch-0003-step-000017/` seventeen steps
later. Each is written beside, synced, read back and renamed, and hidden again before it is removed:
a folder of such a name is whole unless something damaged it later. Nothing points to the newest; it
is the one with the highest position that is found whole. What is damaged goes to `damaged/`.
"""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from byol_tf.errors import RunFolderError
from byol_tf.runs import checkpoint_format as checkpoint_files
from byol_tf.runs.checkpoint_format import DamagedCheckpoint
from byol_tf.runs.files import atomic_folder, remove_left_overs, temporary_path

_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
LEAST_KEPT = 2
"""Whole checkpoints that always stay: if the newest is damaged later, there is another one."""


class LoadedCheckpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        epoch: whole epochs done.
        step: steps done of the epoch after them; 0 at an epoch's end.
        arrays: name -> variable.
        state: what else the run must know, as JSON types.
    """

    epoch: int
    step: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


class Damage(NamedTuple):
    """A checkpoint that can't be used: its folder, and why."""

    path: Path
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def write_checkpoint(
    folder: Path, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
) -> Path:
    """Writes a checkpoint atomically and reads it back; returns its folder.

    Args:
        folder: of all checkpoints, made if it's missing. Nobody else writes there.
        epoch, step, arrays, state: as `LoadedCheckpoint` has them.

    Raises:
        OSError: if it can't be written. Then nothing is left of it, and the checkpoints before it
            are as they were.
        DamagedCheckpoint: if the disk gives other bytes than it was given; likewise.
    """
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint_files.sync(folder.parent)
    final = folder / (f"epoch-{epoch:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")
    remove_left_overs(folder)
    with atomic_folder(final) as temporary:
        checkpoint_files.write_files(temporary, epoch, step, arrays, state)
        checkpoint_files.verify(temporary, epoch, step)
        if os.path.lexists(final):  # damaged, or the run wouldn't have come here again
            set_aside(final)
    checkpoint_files.sync(folder)
    return final


def remove_old(
    folder: Path, keep: int, is_whole: Callable[[Path], bool], scores: Mapping[int, float]
) -> None:
    """Removes checkpoints older than the newest `keep` whole ones (at least two), but for the best
    one.

    Args:
        folder: of all checkpoints.
        keep: how many of the newest stay.
        is_whole: tells of a checkpoint's folder whether it can be counted on.
        scores: epochs done -> accuracy. Of the checkpoints at these epochs' ends the best one
            stays.
    """
    newest_first = list_checkpoints(folder)[::-1]
    ends = {position_of(path): path for path in newest_first}
    best = max(
        (epoch for epoch in scores if (epoch, 0) in ends), key=scores.__getitem__, default=None
    )
    whole = 0
    for path in newest_first:
        if whole >= max(keep, LEAST_KEPT) and path is not ends.get((best, 0)):
            with contextlib.suppress(OSError):  # it may go the next time
                # Renamed first, so that a partial deletion isn't read as a damaged checkpoint.
                shutil.rmtree(path.rename(temporary_path(path)))
        else:
            whole += is_whole(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(
        (path for path in folder.glob("epoch-*") if _NAME.fullmatch(path.name)), key=position_of
    )


def position_of(path: Path) -> tuple[int, int]:
    """(whole epochs done, steps of the next) of a checkpoint's folder, by its name."""
    epoch, step = _NAME.fullmatch(path.name).groups(default="0")
    return int(epoch), int(step)


def verify(path: Path) -> None:
    """Reads a checkpoint's bytes; raises what `checkpoint_files.verify` does."""
    checkpoint_files.verify(path, *position_of(path))


def read_newest(folder: Path) -> tuple[LoadedCheckpoint | None, list[Damage]]:
    """The newest checkpoint that is whole, or None, and each newer one that is damaged. Changes
    nothing.

    Another process may write and remove checkpoints meanwhile.

    Raises:
        RunFolderError: if another version of byol_tf wrote the newest.
        OSError: if it can't be read for a reason that isn't its own, such as a missing right.
    """
    while True:
        damaged = []
        for path in reversed(list_checkpoints(folder)):
            position = position_of(path)
            try:
                return LoadedCheckpoint(
                    *position, *checkpoint_files.read_files(path, *position)
                ), damaged
            except DamagedCheckpoint as error:
                if not os.path.lexists(
                    path
                ):  # removed while it was read, so there is a newer one. A link to nothing is there
                    break
                damaged.append(Damage(path, str(error)))
            except RunFolderError as error:
                raise RunFolderError(f"{path}: {error}") from error
        else:
            return None, damaged


def recover(folder: Path, say: Callable[[str], None], epochs: int = 0) -> LoadedCheckpoint | None:
    """What a run goes on from, or None where it has no checkpoint yet. Clears up what a killed
    process left; sets aside what is damaged.

    Args:
        folder: of all checkpoints. Nobody else writes there.
        say: prints a line for people, here on each damaged one.
        epochs: trained ones in the run's history, which tells that checkpoints were there and are
            missing.

    Raises:
        RunFolderError: if there are checkpoints and none is whole, or there must have been one and
            there is none, or another version of byol_tf wrote the newest. Nothing is moved then.
        OSError: as `read_newest`.
    """
    # The history has an epoch before its checkpoint is written. A process that was killed in
    # between has lost nothing that was saved.
    killed_before_the_first = any(folder.glob(".*.part")) or (
        epochs == 1 and not os.path.lexists(folder)
    )
    remove_left_overs(folder)
    checkpoint, damaged = read_newest(folder)
    if checkpoint is None and not damaged and epochs > 0 and not killed_before_the_first:
        raise RunFolderError(
            f"{folder}: expected checkpoints, as the run's history has {epochs} epoch(s); found "
            "none. Is the disk there that they are on? "
            "Bring them back; or begin another run with --fresh"
        )
    if checkpoint is None and damaged:
        raise RunFolderError(
            f"{folder}: expected a whole checkpoint among {len(damaged)}; received\n"
            + "\n".join(f"  {damage}" for damage in damaged)
            + "\nBring one back from a copy; or begin another run with --fresh"
        )
    for damage in damaged:
        try:
            place = f"set aside as {set_aside(damage.path)}"
        except OSError as error:  # it still doesn't count
            place = f"not set aside: {error}"
        say(f"damaged checkpoint, not used: {damage}; {place}")
    return checkpoint


def set_aside(path: Path) -> Path:
    """Moves a checkpoint to `damaged/` beside it, where it neither counts nor gets lost; returns
    its new path."""
    aside = path.parent / "damaged"
    aside.mkdir(exist_ok=True)
    places = itertools.chain(
        [aside / path.name], (aside / f"{path.name}.{number}" for number in itertools.count(2))
    )
    return path.rename(next(place for place in places if not os.path.lexists(place)))
