"""All photos below a folder, without labels, wherever they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.sources.base import SourceError
from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder.discovery import existing_folder, printable, walk
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.loading import map_in_order
from pipelines.sources.pixels import RGB, PixelFormat


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
        pixels: channels, depth and range of the photos.

    Attributes:
        folder: absolute.
        photos: those that may be readable.
        skipped: name -> reason, of those known to be unreadable without opening them.
        pixels: as given.

    Raises:
        SourceError: there is no such folder, or no photo in it.
    """

    def __init__(self, root: str, option: str, pixels: PixelFormat = RGB) -> None:
        self.folder = existing_folder(root, option)
        files = walk(self.folder, pixels)
        if not files.sizes:
            raise SourceError(f"{option}: {files.no_photos_message()}")
        self.photos = [
            Photo(path, printable(path), size, files.modified[path])
            for path, size in files.sizes.items()
        ]
        self.skipped = {printable(path): reason for path, reason in files.skipped.items()}
        self._notes = files.passed_over_notes()
        self.pixels = pixels
        self._reader = PhotoReader(self.folder, files.sizes, None, pixels=pixels)

    def read(self, photo: Photo) -> np.ndarray:
        """Returns a photo, upright, `[height, width, channels]`. Raises `UnreadableImage`."""
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


def read_photo(path: Path, pixels: PixelFormat = RGB) -> np.ndarray:
    """Returns any photo, upright, as `pixels` says. Raises OSError, UnreadableImage."""
    sizes = {path.name: path.stat().st_size}
    return PhotoReader(path.parent, sizes, None, pixels=pixels).read(path.name)
