"""Checkpoints on disk: folders of plain arrays and a manifest. Needs no TensorFlow and loads no code.

`checkpoints/epoch-0003/` holds `arrays.npz`, `state.json` and `manifest.json` (SHA-256 of both). It is written beside, synced and renamed,
so a folder of that name is always whole.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_NAME = re.compile(r"epoch-(\d{4,})")
_FILES = ("arrays.npz", "state.json")


class LoadedCheckpoint(NamedTuple):
    """What a checkpoint holds."""

    epoch: int
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


def write_checkpoint(folder: Path, epoch: int, arrays: dict[str, np.ndarray], state: dict[str, Any], keep: int = 3) -> Path:
    """Writes the checkpoint of an epoch atomically and removes all but the newest `keep`; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"epoch-{epoch:04d}"
    beside = folder / f".{final.name}.part"
    for left_over in (beside, final):
        shutil.rmtree(left_over, ignore_errors=True)
    beside.mkdir()
    np.savez(beside / "arrays.npz", **{name.replace("/", "|"): array for name, array in arrays.items()})
    (beside / "state.json").write_text(json.dumps(state), encoding="utf-8")
    manifest = {name: _digest(beside / name) for name in _FILES}
    (beside / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for name in (*_FILES, "manifest.json", "."):
        _sync(beside / name)
    beside.rename(final)
    _sync(folder)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("epoch-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=_epoch)


def read_newest(folder: Path) -> tuple[LoadedCheckpoint | None, list[str]]:
    """The newest checkpoint that is whole, or None, and a line for each newer one that is damaged."""
    damaged = []
    for path in reversed(list_checkpoints(folder)):
        try:
            return _read(path), damaged
        except (OSError, ValueError) as error:
            damaged.append(f"{path}: {error}")
    return None, damaged


def _read(path: Path) -> LoadedCheckpoint:
    manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError("manifest.json is not what was written")
    for name in _FILES:
        if _digest(path / name) != manifest.get(name):
            raise ValueError(f"{name} is not what was written")
    with np.load(path / "arrays.npz", allow_pickle=False) as file:
        arrays = {name.replace("|", "/"): file[name] for name in file.files}
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    return LoadedCheckpoint(_epoch(path), arrays, state)


def _epoch(path: Path) -> int:
    return int(_NAME.fullmatch(path.name)[1])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
