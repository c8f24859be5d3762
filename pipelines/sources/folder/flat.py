"""All photos below a folder, whatever their places say: none has a label, and none is left out for
where it lies."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.sources.base import SourceError
from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder.discovery import existing_folder, printable, walk
from pipelines.sources.folder.reader import PhotoReader


@dataclass(frozen=True)
class Photo:
    """A file with a photo's name.

    Attributes:
        path: below the root, with "/".
        name: the same as text that can be written anywhere (see `printable`).
        bytes: its length.
        modified: when it was last changed, in nanoseconds.
    """

    path: str
    name: str
    bytes: int
    modified: int


class FlatImageFolder:
    """The photos below a folder, ascending by path. They are read and never changed.

    Args:
        root: the folder.
        option: how messages name it.

    Attributes:
        folder: absolute.
        photos: those that may be readable.
        skipped: name -> reason, of those that are seen to be unreadable without opening them.

    Raises:
        SourceError: there is no such folder, or no photo in it.
    """

    def __init__(self, root: str, option: str) -> None:
        self.folder = existing_folder(root, option)
        found = walk(self.folder)
        if not found.sizes:
            raise SourceError(f"{option}: {found.no_photos(self.folder)}")
        self.photos = [
            Photo(path, printable(path), size, found.modified[path])
            for path, size in found.sizes.items()
        ]
        self.skipped = {printable(path): reason for path, reason in found.skipped.items()}
        self._reader = PhotoReader(self.folder, found.sizes, None)

    def read(self, photo: Photo) -> np.ndarray:
        """Its pixels, upright, uint8 `[height, width, 3]`. Raises `UnreadableImage`."""
        return self._reader.read(photo.path)

    def read_each(self, photos: Sequence[Photo]) -> Iterator[tuple[Photo, np.ndarray | None, str]]:
        """Reads photos with several threads, and yields them in their order: (photo, pixels or
        None, why there are none).

        Memory: two photos a core.
        """
        workers = min(16, os.cpu_count() or 1)
        with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
            waiting: deque = deque()
            try:
                for photo in photos:
                    waiting.append((photo, pool.submit(self.read, photo)))
                    if len(waiting) == 2 * workers:
                        yield _outcome(*waiting.popleft())
                while waiting:
                    yield _outcome(*waiting.popleft())
            finally:  # also on Ctrl-C: what hasn't begun is dropped
                for _, future in waiting:
                    future.cancel()

    def notes(self) -> list[str]:
        """Lines for people on what the photos were that have been read."""
        return self._reader.settle()


def read_photo(path: Path) -> np.ndarray:
    """One photo from anywhere, upright, uint8 `[height, width, 3]`. Raises `OSError`,
    `UnreadableImage`."""
    return PhotoReader(path.parent, {path.name: path.stat().st_size}, None).read(path.name)


def _outcome(photo: Photo, future) -> tuple[Photo, np.ndarray | None, str]:
    try:
        return photo, future.result(), ""
    except UnreadableImage as error:
        return photo, None, str(error)
