"""Lists of photos: a text file with one path per line, and behind it the photo's class, if any."""

import csv
import stat
from pathlib import Path, PurePosixPath

from pipelines.sources.base import SourceError, check_reachable
from pipelines.sources.folder.discovery import DiscoveredFiles, printable

_MAX_REPORTED = 5  # wrong lines in one message


def read_list(root: str | None) -> DiscoveredFiles | None:
    """Reads a list of photos.

    A line is a path, or a path, a tab and a class; in a `.csv` a comma separates too, and a path
    with a comma stands in quotes. Empty lines, those that begin with #, and a first line that names
    the column `path` are ignored.

    Args:
        root: the list (`.txt`, `.csv`), or a folder.

    Returns:
        The photos. Paths are as in the list: relative to its folder, or absolute. None where `root`
        names a folder.

    Raises:
        SourceError: there is no such list, none of its files exists, or a line is wrong, with its
            number.
    """
    file = Path(root or "").expanduser().absolute()
    check_reachable(file, "data.root")
    if file.suffix.lower() not in (".txt", ".csv") or file.is_dir():
        return None
    line_of, class_of = _parse(file)
    files = _stat_all(file.parent, sorted(line_of))
    files.list_file, files.class_of = file, class_of
    if not files.sizes:
        raise SourceError(
            f"data.root: {file} lists {len(line_of):,} file(s), and none of them is there. A path "
            "is relative to the list's folder; a class stands behind a tab, in a .csv behind a "
            "comma"
        )
    return files


def _parse(file: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Returns the line and, where there is one, the class of each path. Raises SourceError."""
    try:
        # A file's name may be any bytes.
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise SourceError(
            f"data.root: {file}: expected a list of photos; {error.strerror or error}"
        ) from error
    rows = {
        number: line
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip() and not line.startswith("#")
    }
    comma = file.suffix.lower() == ".csv" and not any("\t" in line for line in rows.values())
    line_of: dict[str, int] = {}
    class_of: dict[str, str] = {}
    errors = []
    for number, line in rows.items():
        try:
            path, class_name = _parse_line(line, comma)
            if path in line_of:
                raise ValueError(f"{printable(path)} stands in line {line_of[path]} already")
        except ValueError as error:
            errors.append(f"{file}:{number}: {error}")
            continue
        if number == min(rows) and path.lower() == "path":
            continue
        line_of[path] = number
        if class_name:
            class_of[path] = class_name
    if errors:
        more = len(errors) - _MAX_REPORTED
        raise SourceError(
            "\n".join(errors[:_MAX_REPORTED]) + (f"\nand {more} more" if more > 0 else "")
        )
    return line_of, class_of


def _parse_line(line: str, comma: bool) -> tuple[str, str]:
    """Returns (path, class or ""). Raises ValueError with what was expected."""
    try:
        fields = next(csv.reader([line], strict=True)) if comma else line.split("\t")
    except csv.Error as error:
        raise ValueError(f"expected a path, or a path and a class; {error}") from error
    path, *more = (field.strip() for field in fields)
    received = None
    if not path:
        received = "no path"
    elif len(more) > 1:
        received = f"{len(fields)} fields"
    elif "\0" in path:
        received = "a zero byte"
    if received is not None:
        raise ValueError(f"expected a path, or a path and a class; received {received}")
    return str(PurePosixPath(path)), more[0] if more else ""


def _stat_all(folder: Path, paths: list[str]) -> DiscoveredFiles:
    files = DiscoveredFiles(folder)
    sizes: dict[str, int] = {}
    for path in paths:
        try:
            status = (folder / path).stat()
        except OSError as error:
            files.skipped[path] = error.strerror or str(error)
            continue
        if stat.S_ISREG(status.st_mode):
            sizes[path], files.modified[path] = status.st_size, status.st_mtime_ns
        elif stat.S_ISDIR(status.st_mode):
            files.skipped[path] = "a folder, not a photo"
        else:  # opening a pipe would wait for ever
            files.skipped[path] = "not a regular file"
    files.sizes = sizes
    return files
