"""Finds the files below a folder that have a photo's name; none is opened."""

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from pipelines.sources import heic
from pipelines.sources.base import SourceError, check_reachable

MAX_DEPTH = 100
"""Levels of folders that are searched. A longer path is one that most programs can't name."""
SUFFIXES = (
    frozenset(
        {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
    )
    | heic.SUFFIXES
)


@dataclass
class DiscoveredFiles:
    """Photos below a folder, or in a list.

    Attributes:
        folder: what paths are relative to, absolute.
        sizes: bytes of each photo, by its path below the folder with "/", ascending.
        modified: time of each photo's last change, in nanoseconds.
        skipped: reason for each path that has a photo's name and can't be one.
        others: number of other files, by suffix.
        list_file: the list, or None.
        class_of: the class of each path for which a list names one.
    """

    folder: Path
    sizes: Mapping[str, int] = field(default_factory=dict)
    modified: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    list_file: Path | None = None
    class_of: Mapping[str, str] = field(default_factory=dict)

    def no_photos_message(self) -> str:
        """Returns a line about a folder without photos."""
        others = f"; {self.others_note()}" if self.others else ""
        return (
            f"{self.folder} holds no photos (.jpg, .png, .webp, .bmp, .gif, .tif, .ppm, .pgm, "
            f".jp2, .avif, .heic){others}"
        )

    def others_note(self) -> str:
        """Returns a line about the other files."""
        suffixes = ", ".join(
            f"{number:,} {printable(suffix) or 'without suffix'}"
            for suffix, number in self.others.most_common(5)
        )
        return f"not photos by their names: {sum(self.others.values()):,} file(s) ({suffixes})"


def existing_folder(root: str | None, option: str = "data.root") -> Path:
    """Returns `root` as an absolute path; "~" is understood.

    Args:
        root: the folder.
        option: its name in messages.

    Raises:
        SourceError: it is no folder.
    """
    if root is None:
        raise SourceError('data.root is missing: data.source "folder" needs the folder of photos')
    folder = Path(root).expanduser().absolute()
    check_reachable(folder, option)
    if folder.is_dir():
        return folder
    if folder.exists():
        alternative = ", or a list of them (.txt, .csv)," if option == "data.root" else ""
        raise SourceError(
            f"{option}: {folder} is a file; a folder of photos{alternative} is needed"
        )
    similar: list[str] = []
    if folder.parent.is_dir():
        siblings = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        similar = get_close_matches(folder.name, siblings, n=1)
    hint = f"; did you mean {folder.parent / printable(similar[0])}?" if similar else ""
    raise SourceError(f"{option}: there is no folder {folder}{hint}")


def printable(path: str) -> str:
    r"""Returns a file's name as text that can be written anywhere, different for each name.

    Bytes that are no UTF-8 become `\xe9`, characters that a terminal might act on `\n`, and a
    backslash is doubled.
    """
    text = os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def walk(folder: Path) -> DiscoveredFiles:
    """Returns the photos below `folder`, at any depth.

    Names that begin with a dot are ignored. Links are followed; a link to a folder that contains it
    is not.
    """
    files = DiscoveredFiles(folder)
    sizes: dict[str, int] = {}
    _walk(folder, "", (), files, sizes)
    files.sizes = dict(sorted(sizes.items()))
    return files


def _walk(
    folder: Path,
    prefix: str,
    parents: tuple[tuple[int, int], ...],
    files: DiscoveredFiles,
    sizes: dict[str, int],
) -> None:
    """Adds the files below `folder`; `parents` are device and inode of the folders above."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        files.skipped[prefix or "."] = f"folder can't be read: {error.strerror}"
        return
    if (status.st_dev, status.st_ino) in parents:
        return
    if len(parents) == MAX_DEPTH:
        files.skipped[prefix] = f"folder is {MAX_DEPTH} folders deep"
        return
    parents = (*parents, (status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = prefix + entry.name
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            status = entry.stat()
        except OSError as error:  # a link to nothing, or to itself
            if suffix in SUFFIXES:
                reason = "link to nothing" if entry.is_symlink() else str(error.strerror)
                files.skipped[path] = reason
            continue
        if stat.S_ISDIR(status.st_mode):
            _walk(folder / entry.name, path + "/", parents, files, sizes)
        elif suffix not in SUFFIXES:
            files.others[suffix] += 1
        elif not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            files.skipped[path] = "not a regular file"
        else:
            sizes[path], files.modified[path] = status.st_size, status.st_mtime_ns
