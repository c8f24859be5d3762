"""Checkpoints on disk: folders of plain arrays and a manifest. Needs no TensorFlow and loads no code.

`checkpoints/epoch-0003/` is the run after three epochs, `epoch-0003-step-000017/` seventeen steps later. Each holds `arrays.npz`,
`state.json` and `manifest.json` (SHA-256 of both). It is written beside, synced and renamed, so a folder of such a name is always whole.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_NAME = re.compile(r"epoch-(\d{4,})(?:-step-(\d{6,}))?")
_FILES = ("arrays.npz", "state.json")
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


def write_checkpoint(folder: Path, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> Path:
    """Writes a checkpoint atomically; returns its folder.

    Args:
        folder: of all checkpoints, made if it's missing. Nobody else writes there.
        epoch, step, arrays, state: as `LoadedCheckpoint` has them.

    Raises:
        OSError: if it can't be written. Then nothing is left of it, and the checkpoints before it are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / (f"epoch-{epoch:04d}-step-{step:06d}" if step else f"epoch-{epoch:04d}")
    for left_over in folder.glob(".epoch-*.part"):  # of a process that was killed here
        shutil.rmtree(left_over, ignore_errors=True)
    beside = folder / f".{final.name}.part"
    beside.mkdir()
    try:
        _write_files(beside, arrays, state)
        if final.exists():  # damaged, or the run wouldn't have come here again
            shutil.rmtree(final)
        beside.rename(final)
    except OSError:
        shutil.rmtree(beside, ignore_errors=True)  # on a full disk it would be in the way of everything else
        raise
    _sync(folder)
    return final


def remove_old(folder: Path, keep: int, is_whole: Callable[[Path], bool], scores: Mapping[int, float]) -> None:
    """Removes checkpoints older than the newest `keep` whole ones (at least two), but for the best one.

    Args:
        folder: of all checkpoints.
        keep: how many of the newest stay.
        is_whole: tells of a checkpoint's folder whether it can be counted on.
        scores: epochs done -> accuracy. Of the checkpoints at these epochs' ends the best one stays.
    """
    newest_first = list_checkpoints(folder)[::-1]
    ends = {position_of(path): path for path in newest_first}
    best = max((epoch for epoch in scores if (epoch, 0) in ends), key=scores.__getitem__, default=None)
    whole = 0
    for path in newest_first:
        if whole >= max(keep, LEAST_KEPT) and path is not ends.get((best, 0)):
            with contextlib.suppress(OSError):  # it may go the next time
                shutil.rmtree(path)
        else:
            whole += is_whole(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted((path for path in folder.glob("epoch-*") if _NAME.fullmatch(path.name)), key=position_of)


def position_of(path: Path) -> tuple[int, int]:
    """(whole epochs done, steps of the next) of a checkpoint's folder, by its name."""
    epoch, step = _NAME.fullmatch(path.name).groups(default="0")
    return int(epoch), int(step)


def read_newest(folder: Path) -> tuple[LoadedCheckpoint | None, list[str]]:
    """The newest checkpoint that is whole, or None, and a line for each newer one that is damaged."""
    damaged = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return _read(path), damaged
        except (OSError, ValueError) as error:
            damaged.append(f"{path}: {error}")
    return None, damaged


def verify(path: Path) -> None:
    """Reads a checkpoint's bytes; `ValueError` or `OSError` if they aren't those that were written."""
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json is not what was written")
    for name in _FILES:
        if _digest(path / name) != manifest.get(name):
            raise ValueError(f"{name} is not what was written")


def _write_files(folder: Path, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
    np.savez(folder / "arrays.npz", **{name.replace("/", "|"): array for name, array in arrays.items()})
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    manifest = {name: _digest(folder / name) for name in _FILES}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name in (*_FILES, "manifest.json", "."):
        _sync(folder / name)


def _read(path: Path) -> LoadedCheckpoint:
    verify(path)
    with np.load(path / "arrays.npz", allow_pickle=False) as file:
        arrays = {name.replace("|", "/"): file[name] for name in file.files}
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return LoadedCheckpoint(*position_of(path), arrays, state)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
