"""A list in place of a folder: a text file with the path of a photo a line, and behind it the
photo's class, if it has one."""

import csv
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.sources.base import SourceError
from pipelines.sources.folder.discovery import DiscoveredFiles, printable

_SHOWN = 5  # wrong lines in one message


@dataclass(frozen=True)
class PhotoList:
    """What a list says.

    Attributes:
        file: the list, absolute.
        found: the photos that are there. Paths are as in the list: relative to its folder, or
            absolute.
        class_of: the class of each path that has one, whether it is there or not.
    """

    file: Path
    found: DiscoveredFiles
    class_of: dict[str, str]


def read_list(root: str | None) -> PhotoList | None:
    """Reads the list that `root` names; None where it names a folder.

    A line is a path, or a path, a tab and a class; in a `.csv` a comma separates too, and a path
    with a comma stands in quotes. Empty lines, those that begin with #, and a first line that names
    the column `path` are passed over.

    Raises:
        SourceError: there is no such list, none of its files is there, or a line is wrong, with its
            number.
    """
    file = Path(root or "").expanduser().absolute()
    if file.suffix.lower() not in (".txt", ".csv") or file.is_dir():
        return None
    try:
        text = file.read_bytes().decode(
            "utf-8-sig", "surrogateescape"
        )  # the name of a file may be any bytes
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
    wrong = []
    for number, line in rows.items():
        try:
            path, class_ = _parsed(line, comma)
            if path in line_of:
                raise ValueError(f"{printable(path)} stands in line {line_of[path]} already")
        except ValueError as error:
            wrong.append(f"{file}:{number}: {error}")
            continue
        if number == min(rows) and path.lower() == "path":
            continue
        line_of[path] = number
        if class_:
            class_of[path] = class_
    if wrong:
        raise SourceError(
            "\n".join(wrong[:_SHOWN])
            + (f"\nand {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")
        )
    found = _looked_up(file.parent, sorted(line_of))
    if not found.sizes:
        raise SourceError(
            f"data.root: {file} lists {len(line_of):,} file(s), and none of them is there. A path "
            "is relative to the list's folder; "
            "a class stands behind a tab, in a .csv behind a comma"
        )
    return PhotoList(file, found, class_of)


def _parsed(line: str, comma: bool) -> tuple[str, str]:
    """(path, class or "") of a line; `ValueError` with what was expected."""
    try:
        fields = next(csv.reader([line], strict=True)) if comma else line.split("\t")
    except csv.Error as error:
        raise ValueError(f"expected a path, or a path and a class; {error}") from error
    path, *more = (field.strip() for field in fields)
    if not path or "\0" in path or len(more) > 1:
        received = (
            "no path" if not path else f"{len(fields)} fields" if len(more) > 1 else "a zero byte"
        )
        raise ValueError(f"expected a path, or a path and a class; received {received}")
    return str(PurePosixPath(path)), more[0] if more else ""


def _looked_up(folder: Path, paths: list[str]) -> DiscoveredFiles:
    found = DiscoveredFiles()
    for path in paths:
        try:
            kind = (folder / path).stat()
        except OSError as error:
            found.skipped[path] = error.strerror or str(error)
            continue
        if stat.S_ISREG(kind.st_mode):
            found.sizes[path], found.modified[path] = kind.st_size, kind.st_mtime_ns
        else:  # opening a pipe would wait for ever
            found.skipped[path] = (
                "a folder, not a photo" if stat.S_ISDIR(kind.st_mode) else "not a regular file"
            )
    return found
