"""Tables of photos and their classes, as people and programs write them."""

import codecs
import csv
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from pipelines.cells import text_of_cell
from pipelines.sources.base import SourceError
from pipelines.sources.folder.discovery import printable

PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath", "file_path"),
    *("filepaths", "image", "image_path", "image_name", "img", "photo"),
)
CLASS_COLUMNS = ("label", "class", "labels", "class_name", "category", "target")
_SEPARATORS = ",;\t"
_MAX_REPORTED = 20  # wrong lines in one message


@dataclass(frozen=True)
class TableRow:
    """A photo in a table.

    Attributes:
        line: its number in the file.
        path: as written, with the spaces around it.
        label: its class, without spaces around it and in Unicode's form NFC; empty where there is
            none.
    """

    line: int
    path: str
    label: str


@dataclass(frozen=True)
class PhotoTable:
    """Rows of a table, and how its columns were read.

    Attributes:
        rows: in the order of the file.
        first_line: for messages.
        names_classes: whether it names a column of paths and one of classes.
        ignored: the names of the other columns.
    """

    rows: list[TableRow]
    first_line: str
    names_classes: bool
    ignored: tuple[str, ...]


def read_table(file: Path) -> PhotoTable:
    """Reads a table.

    Fields are separated by commas, semicolons or tabs; in a `.txt` without a header by tabs alone.
    A field with a separator stands in quotes. Where the first line names a column of paths
    (`PATH_COLUMNS`), the classes are in that of `CLASS_COLUMNS`, or in the second of two columns,
    and other columns are ignored. Else a line is a path, or a path and a class. Empty lines and
    those that begin with # are ignored. Text is UTF-8, or UTF-16 with its mark; bytes that are no
    UTF-8 are kept, as file names may have them.

    Raises:
        OSError: the file can't be read.
        SourceError: lines are wrong, each with its number.
    """
    lines = [
        (number, line)
        for number, line in enumerate(re.split(r"\r\n|\r|\n", _text(file)), start=1)
        if line.strip() and not line.startswith("#")
    ]
    if lines and re.fullmatch(r"sep=.", lines[0][1].strip(), re.I):  # for Excel
        del lines[0]
    first_line = lines[0][1].strip() if lines else ""
    separator, header = _header(first_line)
    if header:
        del lines[0]
    if len(header) < 2:  # one name says nothing about columns
        header, separator = (), _separator(file, [line for _, line in lines])
    path_column, label_column = _columns(file, header)
    rows, errors = [], []
    for number, line in lines:
        try:
            fields = _fields(line, separator, quoted=bool(header) or file.suffix.lower() != ".txt")
            if not header and len(fields) > 2:
                raise ValueError(
                    f"expected a path, or a path and a class; received {len(fields)} fields, and "
                    "no first line that names them (path,class)"
                )
            path, label = (
                fields[column] if column is not None and column < len(fields) else ""
                for column in (path_column, label_column)
            )
            if "\0" in path:
                raise ValueError("expected a path; received a zero byte")
            if path.strip():
                label = unicodedata.normalize("NFC", text_of_cell(label.strip()))
                rows.append(TableRow(number, path, label))
            elif label.strip():
                raise ValueError(f"a label ({label.strip()[:40]!r}) without a path")
        except ValueError as error:
            errors.append(f"{file}:{number}: {error}")
    raise_errors(errors)
    used = (path_column, label_column)
    ignored = tuple(name for column, name in enumerate(header) if name and column not in used)
    return PhotoTable(rows, first_line, bool(header) and label_column is not None, ignored)


def raise_errors(errors: list[str]) -> None:
    """Raises SourceError with the first of the lines, if there are any."""
    if errors:
        more = len(errors) - _MAX_REPORTED
        summary = [f"... and {more:,} more"] if more > 0 else []
        raise SourceError("\n".join([*errors[:_MAX_REPORTED], *summary]))


def _text(file: Path) -> str:
    data = file.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _header(line: str) -> tuple[str, tuple[str, ...]]:
    """Returns (separator, names of columns); no names where the line is that of a photo."""
    separator = max(_SEPARATORS, key=line.count)
    names = tuple(field.strip(' "').lower().replace(" ", "_") for field in line.split(separator))
    return separator, names if set(names) & set(PATH_COLUMNS) else ()


def _separator(file: Path, lines: list[str]) -> str:
    """Returns the separator of a table without a header."""
    if file.suffix.lower() == ".txt" or any("\t" in line for line in lines):
        return "\t"
    return max(",;", key=lambda separator: sum(separator in line for line in lines))


def _columns(file: Path, header: tuple[str, ...]) -> tuple[int, int | None]:
    """Returns the columns of paths and of classes. Raises SourceError where a name is twice."""
    if not header:
        return 0, 1
    path = next(name for name in PATH_COLUMNS if name in header)
    label = next((name for name in CLASS_COLUMNS if name in header), None)
    for name in (path, label):
        if header.count(name) > 1:
            raise SourceError(
                f"{file}:1: expected one column {name}; received {header.count(name)}"
            )
    column = header.index(path)
    if label is None:
        return column, 1 - column if len(header) == 2 else None
    return column, header.index(label)


def _fields(line: str, separator: str, quoted: bool) -> list[str]:
    """Returns the fields of a line. Raises ValueError with what was expected."""
    if not quoted:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except csv.Error as error:  # a quote without its second one
        raise ValueError(
            f"expected a quote at both ends of a field, or at none ({error}); received "
            f"{printable(line[:80])}"
        ) from error
