"""All photos below a folder, without labels, wherever they lie."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from operator import le
from pathlib import Path
from typing import BinaryIO, overload

import numpy as np

from pipelines.sources.base import SourceError
from pipelines.sources.folder.discovery import photo_folder, printable, walk
from pipelines.sources.folder.files import PhotoFolder
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import REQUESTS
from pipelines.sources.loading import map_in_order
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.remote import Location, RemotePath

_FETCHED_AHEAD = 64
"""Photos that are requested before they are read, where many are read at once."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A file with a photo's name.

    Attributes:
        path: below the root, with "/".
        bytes: its size.
        modified: time of its last change, in nanoseconds.
    """

    path: str
    bytes: int
    modified: int

    @property
    def name(self) -> str:
        """The path as text that can be written anywhere (see `printable`)."""
        return printable(self.path)


class Photos(Sequence[Photo]):
    """Photos, in any order.

    A million of them take 110 MB, of which their paths are 90; `Photo` objects would take twice
    that, and are made when they are asked for.

    Args:
        paths: of each photo.
        sizes: bytes of each, int64 `[n]`.
        modified: time of the last change of each in nanoseconds, int64 `[n]`.
    """

    def __init__(self, paths: list[str], sizes: np.ndarray, modified: np.ndarray) -> None:
        self._paths, self._sizes, self._modified = paths, sizes, modified

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, row: int) -> Photo: ...
    @overload
    def __getitem__(self, row: slice) -> "Photos": ...
    def __getitem__(self, row: int | slice) -> "Photo | Photos":
        if isinstance(row, slice):
            return self.take(np.arange(len(self))[row])
        return Photo(self._paths[row], int(self._sizes[row]), int(self._modified[row]))

    def take(self, rows: np.ndarray) -> "Photos":
        """Returns the photos of some rows, int `[m]`, ascending."""
        paths = [self._paths[row] for row in rows.tolist()]
        return Photos(paths, self._sizes[rows], self._modified[rows])

    def row_of_path(self, path: str) -> int | None:
        """Returns the row of the photo at a path below the root; None if there is none."""
        if self._row_of_path is not None:
            return self._row_of_path.get(path)
        row = bisect_left(self._paths, path)
        return row if row < len(self) and self._paths[row] == path else None

    def row_of_name(self, name: str) -> int | None:
        """Returns the row of the photo with a name; None if there is none."""
        # A path without a backslash is its own name if there is nothing to escape, and a backslash
        # comes of each escape.
        return self._escaped.get(name) if "\\" in name else self.row_of_path(name)

    @cached_property
    def _row_of_path(self) -> dict[str, int] | None:
        """The row of each path; None where they ascend, as those of a folder do."""
        if all(map(le, self._paths, islice(self._paths, 1, None))):
            return None
        return {path: row for row, path in enumerate(self._paths)}

    @cached_property
    def _escaped(self) -> dict[str, int]:
        """The row of each photo whose name isn't its path."""
        return {
            printable(path): row
            for row, path in enumerate(self._paths)
            if "\\" in path or not path.isprintable()
        }


class _Sizes(Mapping[str, int]):
    """Bytes of each photo by its path, without a dictionary of a million paths."""

    def __init__(self, photos: Photos) -> None:
        self._photos = photos

    def __getitem__(self, path: str) -> int:
        row = self._photos.row_of_path(path)
        if row is None:
            raise KeyError(path)
        return self._photos[row].bytes

    def __iter__(self) -> Iterator[str]:
        return (photo.path for photo in self._photos)

    def __len__(self) -> int:
        return len(self._photos)


class FlatImages:
    """Photos without labels, wherever they lie. They are never changed.

    Args:
        folder: that they lie in, or their shards.
        photos: those that may be readable.
        open_photo: opens a photo by its path. Raises OSError, UnreadableImage.
        skipped: name -> reason, of those known to be unreadable without opening them.
        notes: lines for people.
        pixels: channels, depth and range of the photos.
        save_index: writes where the photos are in their shards, for the next time.
        prefetch: begins to fetch photos that are read soon, where several are one request.
    """

    def __init__(
        self,
        folder: Location,
        photos: Photos,
        open_photo: Callable[[str], BinaryIO],
        skipped: dict[str, str],
        notes: list[str],
        pixels: PixelFormat = RGB,
        save_index: Callable[[], None] = lambda: None,
        prefetch: Callable[[Sequence[Photo]], None] = lambda photos: None,
    ) -> None:
        self.folder, self.photos, self.skipped, self.pixels = folder, photos, skipped, pixels
        self.save_index = save_index
        self._prefetch = prefetch
        self._notes = notes
        self._reader = PhotoReader(open_photo, _Sizes(photos), None, pixels=pixels)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return Path(str(self.folder)).name or str(self.folder)

    def read(self, photo: Photo) -> np.ndarray:
        """Returns a photo, upright, `[height, width, channels]`. Raises `UnreadableImage`."""
        return self._reader.read(photo.path)

    def read_each(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, np.ndarray | None, str]]:
        """Reads photos with several threads, in their order.

        Two photos per core are in memory; of remote ones `REQUESTS`.

        Returns:
            An iterator of (photo, pixels or None, the reason why there are none).
        """

        def read(photo: Photo) -> tuple[Photo, np.ndarray | None, str]:
            try:
                return photo, self.read(photo), ""
            except UnreadableImage as error:
                return photo, None, str(error)

        workers = REQUESTS if isinstance(self.folder, RemotePath) else None
        return map_in_order(read, self._fetched(photos), workers)

    def _fetched(self, photos: Sequence[Photo]) -> Iterable[Photo]:
        """Yields photos, after those that follow have been requested."""
        self._prefetch(photos[:_FETCHED_AHEAD])
        for first in range(0, len(photos), _FETCHED_AHEAD):
            self._prefetch(photos[first + _FETCHED_AHEAD : first + 2 * _FETCHED_AHEAD])
            yield from photos[first : first + _FETCHED_AHEAD]

    def notes(self) -> list[str]:
        """Returns lines for people about the folder and the photos that have been read."""
        return [*self._notes, *self._reader.finish_counting()]


class FlatImageFolder(FlatImages):
    """Photos below a folder, ascending by path.

    Args:
        root: the folder, or the URL of one.
        option: its name in messages.
        pixels: channels, depth and range of the photos.

    Raises:
        SourceError: there is no such folder, or no photo in it.
    """

    def __init__(self, root: str, option: str, pixels: PixelFormat = RGB) -> None:
        folder = photo_folder(root, option)
        files = walk(folder, pixels, option)
        if not files.sizes:
            raise SourceError(f"{option}: {files.no_photos_message()}")
        paths = list(files.sizes)
        # Some file systems have times after 2262, which int64 hasn't.
        modified = (min(files.modified[path], 2**63 - 1) for path in paths)
        photos = Photos(
            paths,
            np.fromiter(files.sizes.values(), np.int64, len(paths)),
            np.fromiter(modified, np.int64, len(paths)),
        )
        super().__init__(
            folder,
            photos,
            PhotoFolder(folder, _Sizes(photos)).open,
            {printable(path): reason for path, reason in files.skipped.items()},
            files.passed_over_notes(),
            pixels,
        )


def read_photo(path: Path, pixels: PixelFormat = RGB) -> np.ndarray:
    """Returns any photo, upright, as `pixels` says. Raises OSError, UnreadableImage."""
    sizes = {path.name: path.stat().st_size}
    reader = PhotoReader(PhotoFolder(path.parent, sizes).open, sizes, None, pixels=pixels)
    return reader.read(path.name)
