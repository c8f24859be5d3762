"""TBD."""

import contextlib
import os
import shutil
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes beside the file and renames it, so that a reader sees the old
    content or the new one.

    Raises:
        OSError: if that can't be. Then the old content stays, and nothing beside it.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def remove_left_overs(folder: Path) -> None:
    """Removes what a killed process was writing in a folder: `.*.part` and `.*.part.*`. One that
    can't be removed stays."""
    for path in (*folder.glob(".*.part"), *folder.glob(".*.part.*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def newest_version(path: Path) -> Path:
    """The SavedModel of the highest number in a folder of numbered ones, which Serving takes too;
    of any other path the path itself."""
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    versions = [
        each
        for each in path.iterdir()
        if each.name.isdecimal() and (each / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda each: int(each.name), default=path)
