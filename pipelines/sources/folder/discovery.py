"""Finds the files below a folder that have a photo's name; none is opened."""

import hashlib
import os
import stat
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipelines.sources import heic
from pipelines.sources.base import SourceError, check_reachable
from pipelines.sources.images import REQUESTS
from pipelines.sources.loading import map_in_order
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.remote import Location, RemotePath, stamp
from pipelines.sources.unreadable import unreadable_examples
from pipelines.urls import is_url

MAX_DEPTH = 100
"""Levels of folders that are searched. A longer path is one that most programs can't name."""
SUFFIXES = (
    frozenset(
        (
            *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif"),
            *(".tiff", ".ppm", ".pgm", ".jp2"),
        )
    )
    | heic.SUFFIXES
)
SCIENTIFIC_SUFFIXES = frozenset((".npy", ".dcm", ".dicom"))
"""Of files that are photos only where images aren't RGB of 8 bits; see `scientific.py`."""
SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@recycle", "@__thumb", "@recently-snapshot"),  # QNAP
        *("$recycle.bin", "recycler", "system volume information"),  # Windows
        *("lost+found", "__macosx"),  # Linux; archives that macOS made
        "thumbnails",
        *(f"found.{number:03}" for number in range(1000)),  # of Windows' chkdsk
    )
)
"""Folders, in lower case, that systems put next to photos: thumbnails, deleted and broken files."""
OUTPUTS = (
    frozenset({"config.json", "environment.json"}),  # a run folder
    frozenset({"about.json", "index.csv"}),  # of byol_tf.embed
    frozenset({"table.md", "table.tex"}),  # of byol_tf.study, also of its --search
)
"""Files by which the folders are recognised that byol_tf writes: their figures are no photos."""
_COMPARISON = {"comparison.png", "comparison.md"}
"""Files that byol_tf.compare writes into any folder; the first is no photo next to the second."""


@dataclass
class DiscoveredFiles:
    """Photos below a folder, or in a list.

    Attributes:
        folder: what paths are relative to, absolute.
        sizes: bytes of each photo, by its path below the folder with "/", ascending.
        modified: time of each photo's last change, in nanoseconds.
        skipped: reason for each path that has a photo's name and can't be one.
        others: number of other files, by suffix.
        passed_over: paths of folders that aren't searched, by the reason.
        list_file: the list, or None.
        class_of: the class of each path for which a list names one.
        ignored_columns: of a list.
    """

    folder: Location
    sizes: Mapping[str, int] = field(default_factory=dict)
    modified: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    passed_over: dict[str, list[str]] = field(default_factory=dict)
    list_file: Path | None = None
    class_of: Mapping[str, str] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()

    def no_photos_message(self) -> str:
        """Returns a line about a folder without photos."""
        notes = [*self.skipped_notes(), *self.passed_over_notes()]
        if self.others:
            notes.append(self.others_note())
        return "; ".join(
            [
                f"{self.folder} holds no photos (.jpg, .png, .webp, .bmp, .gif, .tif, .ppm, .pgm, "
                ".jp2, .avif, .heic)",
                *notes,
            ]
        )

    def skipped_notes(self) -> list[str]:
        """Returns a line about the files that can't be read, if there are any."""
        if not self.skipped:
            return []
        reasons = {printable(path): reason for path, reason in self.skipped.items()}
        return [f"skipped: {len(reasons):,} that can't be read: {unreadable_examples(reasons)}"]

    def passed_over_notes(self) -> list[str]:
        """Returns a line for each reason why folders aren't searched."""
        return [
            f"passed over: {len(paths):,} folder(s) {reason} ({abbreviated(paths)})"
            for reason, paths in self.passed_over.items()
        ]

    def others_note(self) -> str:
        """Returns a line about the other files."""
        suffixes = ", ".join(
            f"{number:,} {printable(suffix) or 'without suffix'}"
            for suffix, number in self.others.most_common(5)
        )
        return f"not photos by their names: {sum(self.others.values()):,} file(s) ({suffixes})"


def photo_folder(root: str | None, option: str = "data.root") -> Location:
    """Returns `root` as an absolute path ("~" is understood), or the folder behind a URL, unseen.

    Args:
        root: the folder.
        option: its name in messages.

    Raises:
        SourceError: it is no folder.
    """
    if root is None:
        raise SourceError('data.root is missing: data.source "folder" needs the folder of photos')
    if not root:
        raise SourceError(f"{option}: expected a folder of photos; received an empty text")
    if is_url(root):
        return RemotePath(root, option)
    folder = Path(os.path.expanduser(root)).absolute()
    if ".." in folder.parts:  # its name is that of the folder above
        folder = folder.resolve()
    check_reachable(folder, option)
    if folder.is_dir():
        return folder
    if folder.exists():
        alternative = ", or a list of them (.txt, .csv, .tsv)," if option == "data.root" else ""
        raise SourceError(
            f"{option}: {folder} is a file; a folder of photos{alternative} is needed"
        )
    raise SourceError(f"{option}: there is no folder {folder}{_similar_hint(folder)}")


def _similar_hint(folder: Path) -> str:
    """Returns a question about the folder that may have been meant, or an empty text."""
    try:
        siblings = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
    except OSError:
        return ""
    similar = get_close_matches(folder.name, siblings, n=1)
    return f"; did you mean {folder.parent / printable(similar[0])}?" if similar else ""


def printable(path: str) -> str:
    r"""Returns a file's name as text that can be written anywhere, different for each name.

    Bytes that are no UTF-8 become `\xe9`, characters that a terminal might act on `\n`, and a
    backslash is doubled.
    """
    text = os.fsencode(path.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def abbreviated(names: Iterable[str], count: int = 5) -> str:
    """Returns the first names in printable form, and how many more there are."""
    printed = sorted(map(printable, names))
    more = f" and {len(printed) - count:,} more" if len(printed) > count else ""
    return ", ".join(printed[:count]) + more


def suffixes_of(pixels: PixelFormat) -> frozenset[str]:
    """Returns the suffixes of files that may be photos, in lower case."""
    return SUFFIXES if pixels.is_rgb else SUFFIXES | SCIENTIFIC_SUFFIXES


def walk(folder: Location, pixels: PixelFormat = RGB, option: str = "data.root") -> DiscoveredFiles:
    """Returns the photos below `folder`, at any depth, of formats that can have these pixels.

    Names that begin with a dot, `SYSTEM_FOLDERS` and folders with `OUTPUTS` are passed over. Links
    are followed after all other folders; each folder is read once, by whatever links it is reached.

    Args:
        folder: on this disk, or behind a URL.
        pixels: what photos are decoded to.
        option: the folder's name in messages.

    Raises:
        SourceError: there is nothing behind the URL, or its server can't be reached.
    """
    suffixes = suffixes_of(pixels)
    if isinstance(folder, RemotePath):
        return _walk_remote(folder, suffixes, option)
    search = _Search(DiscoveredFiles(folder), suffixes)
    search.add(folder, "", 0)
    while search.links:
        search.add(*search.links.popleft())
    search.files.sizes = dict(sorted(search.sizes.items()))
    return search.files


def _walk_remote(folder: RemotePath, suffixes: Collection[str], option: str) -> DiscoveredFiles:
    """Returns the photos below a folder behind a URL. Raises SourceError."""
    try:
        found = folder.find()
    except FileNotFoundError:
        found = {}
    if not found:
        raise SourceError(f"{option}: there is nothing at {folder}")
    files = DiscoveredFiles(folder)
    photos: dict[str, dict[str, Any]] = {}
    for file, info in found.items():
        path = file.removeprefix(folder.path).strip("/")
        *folders, name = path.split("/")
        suffix = os.path.splitext(name)[1].lower()
        system = next((part for part in folders if part.lower() in SYSTEM_FOLDERS), None)
        if any(part.startswith(".") for part in (*folders, name)):
            continue
        if system is not None:
            top = "/".join(folders[: folders.index(system) + 1])
            if top not in files.passed_over.setdefault("of the system", []):
                files.passed_over["of the system"].append(top)
        elif suffix not in suffixes:
            files.others[suffix] += 1
        else:
            photos[path] = {"name": file, **info}
    # The listing of a web server has no sizes.
    unknown = [path for path, info in photos.items() if info.get("size") is None]
    places = [folder.at(photos[path]["name"]) for path in unknown]
    photos |= zip(unknown, map_in_order(RemotePath.info, places, REQUESTS), strict=True)
    for path, info in photos.items():
        digest = hashlib.sha256(stamp(info).encode()).digest()
        files.modified[path] = int.from_bytes(digest[:6])  # no time: it only has to differ
    files.sizes = {path: int(photos[path].get("size") or 0) for path in sorted(photos)}
    return files


class _Search:
    """Adds the files of one folder after the other to `files`."""

    def __init__(self, files: DiscoveredFiles, suffixes: frozenset[str]) -> None:
        self.files = files
        self.suffixes = suffixes
        self.sizes: dict[str, int] = {}
        self.links: deque[tuple[Path, str, int]] = deque()
        self._seen: dict[tuple[int, int], str] = {}  # device and inode of each folder -> its path

    def add(self, folder: Path, prefix: str, depth: int) -> None:
        """Adds a folder, `depth` folders below the root, whose paths begin with `prefix`."""
        files = self.files
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            files.skipped[prefix or "."] = f"folder can't be read: {error.strerror}"
            return
        names = {entry.name for entry in entries}
        if self._seen.setdefault((status.st_dev, status.st_ino), prefix) != prefix:
            self._pass_over(prefix, "that other paths lead to")
        elif depth == MAX_DEPTH:
            files.skipped[prefix] = f"folder is {MAX_DEPTH} folders deep"
        elif prefix and any(output <= names for output in OUTPUTS):
            self._pass_over(prefix, "that byol_tf wrote")
        else:
            written = _COMPARISON if names >= _COMPARISON else ()
            for entry in entries:
                if entry.name in written:
                    files.others[Path(entry.name).suffix] += 1
                elif not entry.name.startswith("."):
                    self._add_entry(folder, prefix, depth, entry)

    def _add_entry(self, folder: Path, prefix: str, depth: int, entry: os.DirEntry[str]) -> None:
        files, path = self.files, prefix + entry.name
        suffix = os.path.splitext(entry.name)[1].lower()
        try:
            status = entry.stat()
        except OSError as error:  # a link to nothing or to itself; a disk that doesn't answer
            is_link = entry.is_symlink()
            if _is_folder(entry):
                files.skipped[path + "/"] = f"folder can't be read: {error.strerror}"
            elif is_link or suffix in self.suffixes or not suffix:
                # A link may have led to a folder, whatever its name ends in: 2024.06, St. Louis
                dangling = isinstance(error, FileNotFoundError) and is_link
                files.skipped[path] = "link to nothing" if dangling else str(error.strerror)
            else:
                files.others[suffix] += 1
            return
        if stat.S_ISDIR(status.st_mode):
            if entry.name.lower() in SYSTEM_FOLDERS:
                self._pass_over(path, "of the system")
            elif entry.is_symlink():
                self.links.append((folder / entry.name, path + "/", depth + 1))
            else:
                self.add(folder / entry.name, path + "/", depth + 1)
        elif suffix not in self.suffixes:
            files.others[suffix] += 1
        elif not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            files.skipped[path] = "not a regular file"
        else:
            self.sizes[path], files.modified[path] = status.st_size, status.st_mtime_ns

    def _pass_over(self, path: str, reason: str) -> None:
        self.files.passed_over.setdefault(reason, []).append(path.rstrip("/"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Returns whether an entry is a folder, as its own folder says: it can't be opened itself."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
