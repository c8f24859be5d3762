"""Files and folders that are written completely or not at all, JSON, and tables as CSV.

A folder may come from somebody else: what is read from it is bounded and may be damaged, and no
link in it is written through.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from byol_tf.errors import RunFolderError, why_not_utf8
from pipelines.cells import text_cell, text_of_cell
from pipelines.regular_files import check_regular, check_size, open_regular, regular_descriptor

NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
"""Flag of `os.open` that refuses a link; Windows has none."""
SAVED_MODEL_VERSION = "1"
"""Name of the subfolder that an exported SavedModel is in: TensorFlow Serving expects numbers."""
_MAX_TEXT_BYTES = 2**28
"""Of a table or a JSON file. A run writes no larger one; a sparse one takes no disk space."""
_SPECIAL_STARTS = ("=", "+", "-", "@", "#")
"""First characters of a formula in a spreadsheet, and of a comment in `read_table`."""
_ESCAPE = "backslashreplace"
"""Form of characters that UTF-8 doesn't have."""
_PATH_COLUMNS = ("path", "query")
"""Columns of tables that hold the names of photos."""


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
    with synced_file(temporary) as file:
        yield file
    try:
        temporary.replace(path)
    except OSError:
        _remove(temporary)
        raise


@contextlib.contextmanager
def synced_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file, which is on the disk when the block succeeds, and removed when it fails."""
    try:
        # Created anew, so that a link which somebody put there isn't written through.
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        _remove(path)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(temporary)
    temporary.mkdir()
    try:
        yield temporary
        with contextlib.suppress(OSError):
            path.rmdir()  # an empty one; Windows renames to no name that is taken
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes text or bytes by `atomic_file`, whose errors it raises.

    Text is written as UTF-8, with an escape for what that can't have: half a surrogate pair, as in
    names that aren't UTF-8 and in JSON from elsewhere.
    """
    with atomic_file(path) as file:
        file.write(content.encode(errors=_ESCAPE) if isinstance(content, str) else content)


def append_to(path: Path) -> BinaryIO:
    """Opens a file to append to; raises `OSError` if it is a link, a pipe or a device."""
    return open(
        path, "ab", opener=lambda name, flags: regular_descriptor(name, flags | NO_FOLLOW, 0o666)
    )


def check_no_link(path: Path) -> None:
    """Raises `RunFolderError` if what a command writes inside an output folder is a link there.

    No command makes one. Files would be written, and earlier ones removed, wherever it leads.
    """
    if path.is_symlink():
        raise RunFolderError(
            f"{path}: it is a link, and nothing is written through one that may be somebody "
            "else's. Move here what it leads to, or remove the link"
        )


def why_no_folder(path: Path) -> str | None:
    """Returns why no folder can be at a path, or be made there; None if one can, as far as is seen.

    Nothing is written, so that a missing permission or a full disk don't show.
    """
    if reason := why_not_utf8(path):
        return reason
    for existing in (path, *path.parents):
        try:
            if stat.S_ISDIR(os.stat(existing).st_mode):
                return None
            return f"{existing} is no folder"
        except FileNotFoundError:
            if os.path.islink(existing):
                return f"{existing} is a link to nothing"
        except (OSError, ValueError) as error:  # ValueError: a NUL character
            return f"{getattr(error, 'strerror', None) or error}"
    return None


def check_fits_memory(files: Iterable[Path]) -> None:
    """Raises `OSError` if files that have to be in memory at once are larger than what is free.

    It is raised for what is no regular file too. See `check_size`.
    """
    for path in files:
        status = path.stat()
        check_regular(path, status)
        check_size(path, status.st_size)


def read_text(path: Path) -> str:
    """Reads a text file.

    Raises:
        OSError: if it can't be read.
        ValueError: if it isn't text in UTF-8, or larger than any that a run writes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAX_TEXT_BYTES:
            raise ValueError(f"{path}: expected at most {_MAX_TEXT_BYTES:,} bytes")
        content = file.read(size)  # a limit alone would be allocated as a whole
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {error}") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Raises:
        OSError: if it can't be read.
        ValueError: if it holds something else.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON; {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object; received {content!r:.40}")
    return content


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads a table that `write_csv` wrote.

    Args:
        path: of the file.
        columns: that it has to have, perhaps among others.

    Returns:
        Column -> what `write_csv` was given, as text, for each row.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is something else, damaged, or cut off.
    """
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: {error}") from error
    names = reader.fieldnames or ()
    if missing := [column for column in columns if column not in names]:
        raise ValueError(f"{path}: expected the column {missing[0]}; it has none")
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise ValueError(f"{path}: expected {len(names)} cells in row {number}")
    if not text.endswith("\n"):
        raise ValueError(f"{path}: its last line is cut off")
    forms = {name: name_of_cell if name in _PATH_COLUMNS else text_of_cell for name in names}
    return [{name: forms[name](cell) for name, cell in row.items()} for row in rows]


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_cell(name: str) -> str:
    """Returns a relative path as a table has it.

    One that a spreadsheet would run as a formula, or a table take for a comment, gets `./` before
    it, which is the same file.
    """
    return f"./{name}" if name.startswith(_SPECIAL_STARTS) else name


def name_of_cell(cell: str) -> str:
    """Returns the path that `path_cell` was given."""
    return cell.removeprefix("./")


def markdown_table(cells: Sequence[Sequence[str]]) -> str:
    """Formats texts as a Markdown table whose columns are aligned, for a terminal too.

    Args:
        cells: rows of texts, the headings first.
    """
    rows = [[text.replace("|", "\\|") for text in row] for row in cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Formats a table as `write_csv_rows` writes it."""
    file = io.BytesIO()
    write_csv_rows(file, columns, rows)
    return file.getvalue().decode()


def write_csv_rows(
    file: BinaryIO, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    r"""Writes a table as CSV: a line with the columns' names, then one a row, each ending in `\n`.

    Args:
        file: to write to, in UTF-8; it stays open.
        columns: names of the columns.
        rows: cells in the order of `columns`; floats are written with all their digits, None as
            an empty cell, paths as `path_cell` returns them and other text as `text_cell`. They are
            written as they come.
    """
    text = io.TextIOWrapper(file, "utf-8", _ESCAPE, newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    forms = [path_cell if column in _PATH_COLUMNS else text_cell for column in columns]
    for row in rows:
        cells = zip(row, forms, strict=True)
        writer.writerow([form(cell) if isinstance(cell, str) else cell for cell, form in cells])
    text.detach()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a table by `write_csv_rows` and `atomic_file`, whose errors it raises."""
    with atomic_file(path) as file:
        write_csv_rows(file, columns, rows)


def remove_left_overs(folder: Path) -> None:
    """Removes the temporary files and folders of killed processes; one that can't be removed stays.

    Args:
        folder: its entries named `.*.part` or `.*.part.*` are removed.
    """
    for path in (*folder.glob(".*.part"), *folder.glob(".*.part.*")):
        _remove(path)


def _remove(path: Path) -> None:
    """Removes a file, a folder or a link, but not what the link leads to; errors are ignored."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def newest_version(path: Path) -> Path:
    """Returns the SavedModel with the highest number in a folder of numbered ones.

    TensorFlow Serving loads the same one. Any other path is returned as it is.
    """
    if not os.path.isdir(path) or os.path.exists(path / "saved_model.pb"):
        return path
    versions = [
        folder
        for folder in path.iterdir()
        if folder.name.isdecimal() and os.path.isfile(folder / "saved_model.pb")
    ]
    return max(versions, key=lambda folder: int(folder.name), default=path)
