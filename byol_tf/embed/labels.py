"""A handful of labels, as a person writes them into a table. Needs no TensorFlow."""

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

_SHOWN = 20
_COMPARISONS = 20_000  # of a wrong path with a name, in all: about a second


@dataclass(frozen=True)
class Given:
    """A label that somebody gave: line of the file, path as written with the spaces around it,
    label."""

    line: int
    path: str
    label: str


def read_labels(file: Path) -> list[Given]:
    """Reads a table with the columns `path` and `label`, separated by commas, semicolons or tabs;
    others are passed over.

    Rows without a label are passed over too: `index.csv` with a column more, of which some cells
    are filled in, is such a table, and so is `predictions.csv`.

    Raises:
        EmbedError: it can't be read, has no such columns, or a row is wrong, each with its line.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise EmbedError(
            f"--few {file}: expected a table with the columns path and label; "
            f"{error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EmbedError(
            f"{file}:{line}: expected text in UTF-8; found byte 0x{error.object[error.start]:02x}"
        ) from None
    head = text.split("\n", 1)[0].strip()
    separator = max(",;\t", key=head.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [name.strip().lower() for name in next(rows, [])]
    if any(columns.count(name) != 1 for name in ("path", "label")):
        raise EmbedError(
            f"{file}:1: expected a first line that names the columns path and label; received "
            f"{head[:80]!r}"
        )
    path, label = columns.index("path"), columns.index("label")
    given, wrong = [], []
    try:
        for row in rows:
            if len(row) <= label or not row[label].strip():
                continue
            if len(row) <= path or not row[path].strip():
                wrong.append(
                    f"{file}:{rows.line_num}: a label ({row[label].strip()[:40]!r}) without a path"
                )
            else:
                given.append(Given(rows.line_num, row[path], row[label].strip()))
    except csv.Error as error:
        wrong.append(f"{file}:{rows.line_num}: {error}")
    _raise(wrong)
    return given


def match_labels(
    file: Path, given: Iterable[Given], names: Iterable[str], folder: Path
) -> dict[str, str]:
    """Name of a photo -> its label.

    A path may be as in `index.csv`, or as seen from here if it leads into the folder. Spaces around
    it are the photo's where there is such a photo, and else the table's.

    Args:
        file: for messages.
        given: its rows.
        names: of all photos, unreadable ones included, as in `index.csv`.
        folder: of the photos, absolute.

    Raises:
        EmbedError: a path is no photo of the folder, a photo has two labels, or there are fewer
            than two classes; each with its line.
    """
    names = list(names)
    # A name with accents may be written in two ways that look alike; a file system and an editor
    # needn't agree.
    known = {unicodedata.normalize("NFC", name): name for name in names} | {
        name: name for name in names
    }
    labels: dict[str, str] = {}
    lines: dict[str, int] = {}
    hints, wrong = _Hints(names), []
    for each in given:
        name = next(
            (
                known[candidate]
                for candidate in _candidates(each.path, folder)
                if candidate in known
            ),
            None,
        )
        if name is None:
            path = each.path.strip()
            near = hints.near(path) if len(wrong) < _SHOWN else None
            hint = f"; did you mean {near}?" if near else ""
            wrong.append(f"{file}:{each.line}: {path}: no photo of that name below {folder}{hint}")
        elif labels.setdefault(name, each.label) != each.label:
            wrong.append(
                f"{file}:{each.line}: {name} is {each.label!r} here and {labels[name]!r} in line "
                f"{lines[name]}"
            )
        lines.setdefault(name, each.line)
    _raise(wrong)
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        found = f"all {len(labels)} are {classes[0]!r}" if classes else "none has a label"
        raise EmbedError(f"{file}: expected labels of two classes or more; {found}")
    return labels


def _candidates(path: str, folder: Path) -> Iterator[str]:
    """The names that a path may mean, the likeliest first."""
    for written in dict.fromkeys((path, path.strip())):
        yield written
        yield unicodedata.normalize("NFC", written)
        yield _below(written, folder)


class _Hints:
    """Finds the name that somebody may have meant: one with the same last part, else one that is
    spelt alike if there are few names.

    Args:
        names: of all photos.
    """

    def __init__(self, names: list[str]) -> None:
        self._names, self._left = names, _COMPARISONS

    def near(self, path: str) -> str | None:
        """The name most like a path that is none."""
        same = self._by_last_part.get(_last_part(path), [])
        among = same or self._names
        if (
            len(among) > self._left
        ):  # with a hundred thousand photos each wrong path would take seconds
            return None
        self._left -= len(among)
        return next(
            iter(difflib.get_close_matches(path, among, n=1, cutoff=0.0 if same else 0.6)), None
        )

    @cached_property
    def _by_last_part(self) -> dict[str, list[str]]:
        found = defaultdict(list)
        for name in self._names:
            found[_last_part(name)].append(name)
        return found


def _last_part(path: str) -> str:
    return unicodedata.normalize("NFC", path.rpartition("/")[2]).casefold()


def _below(path: str, folder: Path) -> str:
    """A path as seen from here, as seen from the folder."""
    return os.path.relpath(Path(path).expanduser().absolute(), folder).replace(os.sep, "/")


def _raise(wrong: list[str]) -> None:
    if wrong:
        more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise EmbedError("\n".join([*wrong[:_SHOWN], *more]))
