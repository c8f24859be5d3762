"""Files and folders that are written completely or not at all, and tables as CSV."""

import contextlib
import csv
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

SAVED_MODEL_VERSION = "1"
"""Name of the subfolder that an exported SavedModel is in: TensorFlow Serving expects numbers."""


def temporary_path(path: Path) -> Path:
    """Returns the hidden name under which a file or folder is written until it is complete."""
    return path.with_name(f".{path.name}.part")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when the block succeeds.

    A reader sees the old content or the new one, also after a crash: the file is synced before it
    is renamed.

    Raises:
        OSError: if it can't be written. Then the old content stays and the temporary file is
            removed.
    """
    temporary = temporary_path(path)
    try:
        # Created anew, so that a link which somebody put there isn't written through.
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Makes a temporary folder that becomes `path` when the block succeeds.

    The block removes what is at `path`: an empty folder there is replaced, anything else is an
    error. Files aren't synced.

    Raises:
        OSError: if it can't be written. The temporary folder is removed then.
    """
    temporary = temporary_path(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes by `atomic_file`, whose errors it raises."""
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Formats a table as CSV: a line with the columns' names, then one a row, each ending in `\n`.

    Args:
        columns: names of the columns.
        rows: cells in the order of `columns`; floats are written with all their digits, None as
            an empty cell.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes `csv_text` by `atomic_file`, whose errors it raises."""
    write_atomically(path, csv_text(columns, rows))


def remove_left_overs(folder: Path) -> None:
    """Removes the temporary files and folders of killed processes; one that can't be removed stays.

    Args:
        folder: its entries named `.*.part` or `.*.part.*` are removed.
    """
    for path in (*folder.glob(".*.part"), *folder.glob(".*.part.*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()


def newest_version(path: Path) -> Path:
    """Returns the SavedModel with the highest number in a folder of numbered ones.

    TensorFlow Serving loads the same one. Any other path is returned as it is.
    """
    if not path.is_dir() or (path / "saved_model.pb").exists():
        return path
    versions = [
        folder
        for folder in path.iterdir()
        if folder.name.isdecimal() and (folder / "saved_model.pb").is_file()
    ]
    return max(versions, key=lambda folder: int(folder.name), default=path)
