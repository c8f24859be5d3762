"""Tables of a few labels, as people write them."""

import difflib
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from byol_tf.errors import EmbedError
from byol_tf.runs.files import name_of_cell
from pipelines.sources import SourceError, TableRow, read_table
from pipelines.sources.remote import Location

_MAX_ERRORS = 20
_MAX_COMPARED = 2_000  # names with a wrong path: each of 20 takes a tenth of a second


def read_labels(file: Path) -> list[TableRow]:
    """Reads a table whose first line names a column of paths and one of labels.

    Rows without a label are ignored: `index.csv` with a column `label` of which some cells are
    filled in is such a table, and so is `predictions.csv`. See `pipelines.sources.read_table`.

    Raises:
        EmbedError: if the file can't be read, lacks a column, or has wrong rows, each with its
            line.
    """
    try:
        table = read_table(file)
    except OSError as error:
        raise EmbedError(
            f"--few {file}: expected a table with the columns path and label; "
            f"{error.strerror or error}"
        ) from error
    except SourceError as error:
        raise EmbedError(str(error)) from error
    if not table.names_classes:
        raise EmbedError(
            f"{file}:1: expected a first line that names the columns path and label; received "
            f"{table.first_line[:80]!r}"
        )
    rows = [row for row in table.rows if row.label]
    for row in rows:
        for character in row.path + row.label:
            if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8
                raise EmbedError(
                    f"{file}:{row.line}: expected text in UTF-8; received byte "
                    f"0x{ord(character) - 0xDC00:02x}"
                )
            if unicodedata.category(character) == "Cc":  # a terminal might act on it
                raise EmbedError(
                    f"{file}:{row.line}: expected text; received the control character "
                    f"{character!r}"
                )
    return rows


def match_labels(
    file: Path, rows: Iterable[TableRow], names: Iterable[str], folder: Location
) -> dict[str, str]:
    """Returns the label of each photo in a table.

    A path may be as in `index.csv`, or relative to the working directory or absolute if it leads
    into the folder. Spaces around a path belong to it where there is such a photo.

    Args:
        file: for messages.
        rows: of the table.
        names: of all photos as in `index.csv`, unreadable ones included.
        folder: of the photos, absolute.

    Raises:
        EmbedError: if a path is no photo of the folder, a photo has two labels, or there are fewer
            than two classes; each with its line.
    """
    names = list(names)
    # Accented characters have two Unicode forms, and file systems and editors differ in them.
    known = {unicodedata.normalize("NFC", name): name for name in names}
    known |= {name: name for name in names}
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    by_file_name: dict[str, list[str]] = {}
    errors: list[str] = []
    for row in rows:
        candidates = _candidate_names(row.path, folder)
        matches = [known[candidate] for candidate in candidates if candidate in known]
        if not matches:
            path = row.path.strip()
            by_file_name = by_file_name or _names_by_file_name(names)
            shown = len(errors) < _MAX_ERRORS
            similar = _similar_name(path, names, by_file_name) if shown else None
            hint = f"; did you mean {similar}?" if similar else ""
            errors.append(f"{file}:{row.line}: {path}: no photo of that name below {folder}{hint}")
            continue
        name = matches[0]
        if labels.setdefault(name, row.label) != row.label:
            errors.append(
                f"{file}:{row.line}: {name} is {row.label!r} here and {labels[name]!r} in line "
                f"{lines[name]}"
            )
        lines.setdefault(name, row.line)
    _raise_errors(errors)
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        received = f"all {len(labels)} are {classes[0]!r}" if classes else "none has a label"
        raise EmbedError(f"{file}: expected labels of two classes or more; {received}")
    return labels


def _names_by_file_name(names: Iterable[str]) -> dict[str, list[str]]:
    by_file_name = defaultdict(list)
    for name in names:
        by_file_name[_file_name(name)].append(name)
    return by_file_name


def _similar_name(path: str, names: list[str], by_file_name: dict[str, list[str]]) -> str | None:
    """Returns the photo that a wrong path may mean, if there is one.

    That is one with the same file name, or else, among few photos, one with a similar path.
    """
    if same := by_file_name.get(_file_name(path)):
        return difflib.get_close_matches(path, same[:_MAX_COMPARED], n=1, cutoff=0.0)[0]
    if len(names) > _MAX_COMPARED:
        return None
    return next(iter(difflib.get_close_matches(path, names, n=1)), None)


def _candidate_names(path: str, folder: Location) -> Iterator[str]:
    """The names that a path may mean, the most likely first."""
    for written in dict.fromkeys((path, path.strip())):
        yield written
        yield unicodedata.normalize("NFC", written)
        yield name_of_cell(written)
        absolute = Path(written).expanduser().absolute()
        yield os.path.relpath(absolute, str(folder)).replace(os.sep, "/")
        yield written.replace("\\", "/").removeprefix("./")


def _file_name(path: str) -> str:
    return unicodedata.normalize("NFC", path.rpartition("/")[2]).casefold()


def _raise_errors(errors: list[str]) -> None:
    if errors:
        more = len(errors) - _MAX_ERRORS
        summary = [f"... and {more} more"] if more > 0 else []
        raise EmbedError("\n".join([*errors[:_MAX_ERRORS], *summary]))
