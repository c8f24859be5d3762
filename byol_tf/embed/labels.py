"""Tables of a few labels, as people write them."""

import csv
import difflib
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from byol_tf.errors import EmbedError
from byol_tf.runs.files import name_of_cell

_MAX_ERRORS = 20
_MAX_COMPARISONS = 20_000  # of a wrong path with a name, for all hints: about a second


@dataclass(frozen=True)
class LabelRow:
    """A label in a table.

    Attributes:
        line: its number in the file.
        path: as written, with the spaces around it.
        label: without spaces around it.
    """

    line: int
    path: str
    label: str


def read_labels(file: Path) -> list[LabelRow]:
    """Reads a table with the columns `path` and `label`, separated by commas, semicolons or tabs.

    Other columns and rows without a label are ignored: `index.csv` with a column `label` of which
    some cells are filled in is such a table, and so is `predictions.csv`.

    Raises:
        EmbedError: if the file can't be read, lacks a column, or has wrong rows, each with its
            line.
    """
    text = _read_text(file)
    header = text.split("\n", 1)[0].strip()
    separator = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [name.strip().lower() for name in next(reader, [])]
    if any(columns.count(name) != 1 for name in ("path", "label")):
        raise EmbedError(
            f"{file}:1: expected a first line that names the columns path and label; received "
            f"{header[:80]!r}"
        )
    path_column, label_column = columns.index("path"), columns.index("label")
    rows: list[LabelRow] = []
    errors: list[str] = []
    try:
        for cells in reader:
            # a short row has empty cells at its end
            path, label = (
                cells[column] if column < len(cells) else ""
                for column in (path_column, label_column)
            )
            label = label.strip()
            if label and path.strip():
                rows.append(LabelRow(reader.line_num, path, label))
            elif label:
                errors.append(f"{file}:{reader.line_num}: a label ({label[:40]!r}) without a path")
    except csv.Error as error:
        errors.append(f"{file}:{reader.line_num}: {error}")
    _raise_errors(errors)
    return rows


def match_labels(
    file: Path, rows: Iterable[LabelRow], names: Iterable[str], folder: Path
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
    hints = NameHints(names)
    errors: list[str] = []
    for row in rows:
        candidates = _candidate_names(row.path, folder)
        matches = [known[candidate] for candidate in candidates if candidate in known]
        if not matches:
            path = row.path.strip()
            similar = hints.find(path) if len(errors) < _MAX_ERRORS else None
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


class NameHints:
    """Finds the photo that a wrong path may mean.

    That is one with the same file name, or else one with a similar path; with too many photos to
    compare, none.

    Args:
        names: of all photos.

    Attributes:
        comparisons: number of names that were compared with wrong paths.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.comparisons = 0

    def find(self, path: str) -> str | None:
        """The name most similar to a path."""
        same_file_name = self._by_file_name.get(_file_name(path), [])
        candidates = same_file_name or self._names
        if self.comparisons + len(candidates) > _MAX_COMPARISONS:
            return None
        self.comparisons += len(candidates)
        cutoff = 0.0 if same_file_name else 0.6
        return next(iter(difflib.get_close_matches(path, candidates, n=1, cutoff=cutoff)), None)

    @cached_property
    def _by_file_name(self) -> dict[str, list[str]]:
        names = defaultdict(list)
        for name in self._names:
            names[_file_name(name)].append(name)
        return names


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EmbedError(
            f"{file}:{line}: expected text in UTF-8; received byte "
            f"0x{error.object[error.start]:02x}"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise EmbedError(
            f"--few {file}: expected a table with the columns path and label; "
            f"{getattr(error, 'strerror', None) or error}"
        ) from error


def _candidate_names(path: str, folder: Path) -> Iterator[str]:
    """The names that a path may mean, the most likely first."""
    for written in dict.fromkeys((path, path.strip())):
        yield written
        yield unicodedata.normalize("NFC", written)
        yield name_of_cell(written)
        absolute = Path(written).expanduser().absolute()
        yield os.path.relpath(absolute, folder).replace(os.sep, "/")


def _file_name(path: str) -> str:
    return unicodedata.normalize("NFC", path.rpartition("/")[2]).casefold()


def _raise_errors(errors: list[str]) -> None:
    if errors:
        more = len(errors) - _MAX_ERRORS
        summary = [f"... and {more} more"] if more > 0 else []
        raise EmbedError("\n".join([*errors[:_MAX_ERRORS], *summary]))
