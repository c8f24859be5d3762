"""The files below a folder that have a photo's name. Nothing is opened."""

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pipelines.sources import heic
from pipelines.sources.base import SourceError

MAX_DEPTH = 100
"""Folders within folders that are looked into. A path of more is longer than most programs can
name."""
SUFFIXES = (
    frozenset(
        {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
    )
    | heic.SUFFIXES
)


@dataclass
class DiscoveredFiles:
    """What lies below a folder.

    Attributes:
        sizes: bytes of each photo, by its path below the root with "/", ascending.
        modified: when each was last changed, in nanoseconds.
        skipped: reason for each path that has a photo's name and can't be one.
        others: number of other files, by suffix.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    modified: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)

    def no_photos(self, folder: Path) -> str:
        """One line on a folder where no photo is."""
        others = f"; {self.others_note()}" if self.others else ""
        return (
            f"{folder} holds no photos (.jpg, .png, .webp, .bmp, .gif, .tif, .ppm, .pgm, .jp2, "
            f".avif, .heic){others}"
        )

    def others_note(self) -> str:
        """One line about the other files."""
        kinds = ", ".join(
            f"{number:,} {printable(suffix) or 'without suffix'}"
            for suffix, number in self.others.most_common(5)
        )
        return f"not photos by their names: {sum(self.others.values()):,} file(s) ({kinds})"


def existing_folder(root: str | None, option: str = "data.root") -> Path:
    """Returns `root` as an absolute path; "~" is understood. Raises SourceError, which names the
    `option`, where it is no folder."""
    if root is None:
        raise SourceError('data.root is missing: data.source "folder" needs the folder of photos')
    folder = Path(root).expanduser().absolute()
    if folder.is_dir():
        return folder
    if folder.exists():
        listed = ", or a list of them (.txt, .csv)," if option == "data.root" else ""
        raise SourceError(f"{option}: {folder} is a file; a folder of photos{listed} is needed")
    near: list[str] = []
    if folder.parent.is_dir():
        near = get_close_matches(
            folder.name, sorted(path.name for path in folder.parent.iterdir() if path.is_dir()), n=1
        )
    hint = f"; did you mean {folder.parent / printable(near[0])}?" if near else ""
    raise SourceError(f"{option}: there is no folder {folder}{hint}")


def printable(path: str) -> str:
    r"""A file's name as text that can be written anywhere, no two names alike: bytes that are no
    UTF-8 become `\xe9`, signs that a terminal might act on `\n`, and a backslash is doubled."""
    text = os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def walk(folder: Path) -> DiscoveredFiles:
    """Lists the photos below `folder`, at any depth.

    Names that begin with a dot are passed over. Links are followed; a link to a folder that it lies
    in is not.
    """
    found = DiscoveredFiles()
    _walk(folder, "", (), found)
    found.sizes = dict(sorted(found.sizes.items()))
    return found


def _walk(
    folder: Path, prefix: str, above: tuple[tuple[int, int], ...], found: DiscoveredFiles
) -> None:
    try:
        here = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        found.skipped[prefix or "."] = f"folder can't be read: {error.strerror}"
        return
    if (here.st_dev, here.st_ino) in above:
        return
    if len(above) == MAX_DEPTH:
        found.skipped[prefix] = f"folder is {MAX_DEPTH} folders deep"
        return
    above = (*above, (here.st_dev, here.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = prefix + entry.name
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            kind = entry.stat()
        except OSError as error:  # a link to nothing, or to itself
            if suffix in SUFFIXES:
                found.skipped[path] = (
                    "link to nothing" if entry.is_symlink() else str(error.strerror)
                )
            continue
        if stat.S_ISDIR(kind.st_mode):
            _walk(folder / entry.name, path + "/", above, found)
        elif suffix not in SUFFIXES:
            found.others[suffix] += 1
        elif not stat.S_ISREG(kind.st_mode):  # opening a pipe would wait for ever
            found.skipped[path] = "not a regular file"
        else:
            found.sizes[path], found.modified[path] = kind.st_size, kind.st_mtime_ns
