"""Lists of photos in place of a folder, with or without their classes."""

import os
import stat
import unicodedata
from pathlib import Path, PurePosixPath

from pipelines.sources.base import SourceError, check_reachable
from pipelines.sources.folder.discovery import DiscoveredFiles, printable
from pipelines.sources.folder.table import TableRow, raise_errors, read_table
from pipelines.urls import is_url

_SUFFIXES = (".txt", ".csv", ".tsv")


def read_list(root: str | None) -> DiscoveredFiles | None:
    """Reads a list of photos: see `read_table` for its lines.

    A path is relative to the list's folder, or absolute. Where there is no such file, slashes for
    backslashes and the other ways to encode accents are tried.

    Args:
        root: the list (`.txt`, `.csv`, `.tsv`), or a folder.

    Returns:
        The photos. Paths are as in the list, or as the file is called in fact. None where `root`
        names a folder.

    Raises:
        SourceError: there is no such list, none of its files exists, a photo is listed twice, or a
            line is wrong, with its number.
    """
    if root is not None and is_url(root):
        if root.endswith(_SUFFIXES):
            raise SourceError(
                f"data.root: {root}: expected a folder; a list is read from this disk alone"
            )
        return None
    file = Path(os.path.expanduser(root or "")).absolute()
    check_reachable(file, "data.root")
    if file.suffix.lower() not in _SUFFIXES or file.is_dir():
        return None
    try:
        table = read_table(file)
    except OSError as error:
        raise SourceError(
            f"data.root: {file}: expected a list of photos; {error.strerror or error}"
        ) from error
    files = _find_all(file, table.rows)
    files.ignored_columns = table.ignored
    if not files.sizes:
        raise SourceError(
            f"data.root: {file} lists {len(table.rows):,} file(s), and none of them is there. A "
            "path is relative to the list's folder; a class stands behind a tab, in a .csv behind "
            "a comma or semicolon"
        )
    return files


def _find_all(file: Path, rows: list[TableRow]) -> DiscoveredFiles:
    files = DiscoveredFiles(file.parent, list_file=file)
    line_of: dict[str, int] = {}
    class_of: dict[str, str] = {}
    sizes: dict[str, int] = {}
    errors = []
    for row in rows:
        path, status = _find(file.parent, str(PurePosixPath(row.path.strip())))
        if path in line_of:
            errors.append(
                f"{file}:{row.line}: {printable(path)} stands in line {line_of[path]} already"
            )
            continue
        line_of[path] = row.line
        if row.label:
            class_of[path] = row.label
        if (
            isinstance(status, OSError)
            and row is rows[0]
            and not os.path.splitext(path)[1]
            and len(rows) > 1
        ):
            errors.append(
                f"{file}:{row.line}: {printable(path)}: there is no such photo; if the line names "
                "the columns, expected path and label (docs/photos.md has other names)"
            )
        elif isinstance(status, OSError):
            files.skipped[path] = status.strerror or str(status)
        elif stat.S_ISREG(status.st_mode):
            sizes[path], files.modified[path] = status.st_size, status.st_mtime_ns
        elif stat.S_ISDIR(status.st_mode):
            files.skipped[path] = "a folder, not a photo"
        else:  # opening a pipe would wait for ever
            files.skipped[path] = "not a regular file"
    raise_errors(errors)
    files.sizes, files.class_of = dict(sorted(sizes.items())), class_of
    return files


def _find(folder: Path, path: str) -> tuple[str, os.stat_result | OSError]:
    """Returns a path as its file is found by it, and the file's status or why it has none."""
    slashes = path.replace("\\", "/")
    others = (slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")))
    try:
        return path, (folder / path).stat()
    except OSError as error:
        found = next((other for other in others if os.path.exists(folder / other)), None)
        return (path, error) if found is None else (found, (folder / found).stat())
