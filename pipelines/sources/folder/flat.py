"""All photos below a folder, without labels, wherever they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.sources.base import SourceError
from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder.discovery import existing_folder, printable, walk
from pipelines.sources.folder.files import PhotoFolder
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.loading import map_in_order


@dataclass(frozen=True)
class Photo:
    """A file with a photo's name.

    Attributes:
        path: below the root, with "/".
        name: the same as text that can be written anywhere (see `printable`).
        bytes: its size.
        modified: time of its last change, in nanoseconds.
    """

    path: str
    name: str
    bytes: int
    modified: int


class FlatImageFolder:
    """Photos below a folder, ascending by path. They are never changed.

    Args:
        root: the folder.
        option: its name in messages.

    Attributes:
        folder: absolute.
        photos: those that may be readable.
        skipped: name -> reason, of those known to be unreadable without opening them.

    Raises:
        SourceError: there is no such folder, or no photo in it.
    """

    def __init__(self, root: str, option: str) -> None:
        self.folder = existing_folder(root, option)
        files = walk(self.folder)
        if not files.sizes:
            raise SourceError(f"{option}: {files.no_photos_message()}")
        self.photos = [
            Photo(path, printable(path), size, files.modified[path])
            for path, size in files.sizes.items()
        ]
        self.skipped = {printable(path): reason for path, reason in files.skipped.items()}
        self._notes = files.passed_over_notes()
        self._reader = PhotoReader(PhotoFolder(self.folder, files.sizes).open, files.sizes, None)

    def read(self, photo: Photo) -> np.ndarray:
        """Returns a photo, upright, uint8 `[height, width, 3]`. Raises `UnreadableImage`."""
        return self._reader.read(photo.path)

    def read_each(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, np.ndarray | None, str]]:
        """Reads photos with several threads, in their order; two photos per core are in memory.

        Returns:
            An iterator of (photo, pixels or None, the reason why there are none).
        """

        def read(photo: Photo) -> tuple[Photo, np.ndarray | None, str]:
            try:
                return photo, self.read(photo), ""
            except UnreadableImage as error:
                return photo, None, str(error)

        return map_in_order(read, photos)

    def notes(self) -> list[str]:
        """Returns lines for people about the folder and the photos that have been read."""
        return [*self._notes, *self._reader.finish_counting()]


def read_photo(path: Path) -> np.ndarray:
    """Returns any photo, upright, uint8 `[height, width, 3]`. Raises OSError, UnreadableImage."""
    sizes = {path.name: path.stat().st_size}
    return PhotoReader(PhotoFolder(path.parent, sizes).open, sizes, None).read(path.name)
