"""Own photos: read when they are accessed, and replaced when they become unreadable."""

from collections.abc import Callable, Collection, Sequence
from typing import BinaryIO

import numpy as np

from pipelines.sources.base import ImageFiles, Request, SourceError
from pipelines.sources.blocks import Blocks
from pipelines.sources.decoding import read_header
from pipelines.sources.folder.discovery import printable
from pipelines.sources.folder.layout import Layout
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.folder.replacement import LostPhotos
from pipelines.sources.image_file import ImageFacts, UnreadableImage
from pipelines.sources.images import REQUESTS, LazyImages, Shape
from pipelines.sources.loading import map_in_order
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.pixels import PixelFormat
from pipelines.sources.remote import Location

HEADERS = 64
"""Photos whose headers are compared to tell whether all seem to have one size."""


class OwnPhotos(ImageFiles):
    """Photos of a run, and the files that they are read from.

    A resumed run has the photos of its manifest, whatever has become of them since.

    Args:
        request: of the run.
        root: of the photos, for messages.
        layout: which photos each split has.
        reader: reads a photo by its path.
        paths: of all photos.
        manifest: of a new run.
        remote: whether reading a photo waits for a server.
    """

    def __init__(
        self,
        request: Request,
        root: Location,
        layout: Layout,
        reader: PhotoReader,
        paths: Collection[str],
        manifest: PhotoManifest,
        *,
        remote: bool,
    ) -> None:
        self.layout = layout
        self.manifest = request.manifest or manifest
        self._reader = reader
        self._remote = remote
        self._pixels = request.pixels
        self._by_header = request.check == "headers"
        self._lost = LostPhotos(root, request.on_lost)
        # Printable path -> reason, of a resumed run.
        self._skipped = {} if request.manifest is None else dict(request.manifest.skipped)
        if request.manifest is not None:
            skipped = [path for path in paths if printable(path) in self._skipped]
            allowed = int(request.max_unreadable_fraction * len(paths)) - len(self._skipped)
            self._lost.begin(allowed, skipped)

    @property
    def failure(self) -> SourceError | None:
        """See `ImageFiles`."""
        return self._lost.failure

    def images(self, split: str) -> LazyImages:
        """Returns the photos of a split."""
        paths, labels = self.layout.files[split], self.layout.labels.get(split)
        return LazyImages(
            len(paths),
            lambda index: self._lost.read(self._read, paths, index, labels),
            labels,
            encoded=lambda index: self._reader.encoded(paths[index]),
            shape_of=lambda index: self._lost.read(self._shape, paths, index, labels),
            remote=self._remote,
            pixels=self._pixels,
            blocks=self._blocks(paths),
            prefetch=lambda indices: self._prefetch([paths[index] for index in indices.tolist()]),
        )

    def name(self, split: str, index: int) -> str:
        """See `ImageFiles`."""
        return printable(self.layout.files[split][index])

    def finish_reading(self, losses_allowed: int) -> tuple[str, ...]:
        """See `ImageFiles`."""
        self._lost.begin(losses_allowed)
        return tuple(self._reader.finish_counting())

    def _blocks(self, paths: Sequence[str]) -> Blocks | None:
        """Returns the blocks that photos are read in; each is read alone by default."""
        return None

    def _prefetch(self, paths: Sequence[str]) -> None:
        """Does nothing by default, see `Images.prefetch`."""

    def _read(self, path: str) -> np.ndarray:
        # A photo that is readable by now stays skipped, or the order would change.
        if self._skipped and (reason := self._skipped.get(printable(path))) is not None:
            raise UnreadableImage(reason)
        return self._reader.read(path)

    def _shape(self, path: str) -> Shape:
        return self._reader.shape(path, by_header=self._by_header)


def likely_shape(
    layout: Layout,
    known: Callable[[str], ImageFacts | None],
    open_photo: Callable[[str], BinaryIO],
    pixels: PixelFormat,
    *,
    remote: bool = False,
) -> Shape | None:
    """Returns the shape on which headers from all over the photos agree, or None.

    Args:
        layout: of the photos.
        known: path -> what the header of a photo states, where that is known.
        open_photo: opens a photo by its path. Raises OSError, UnreadableImage.
        pixels: what the photos are decoded to.
        remote: whether opening a photo waits for a server.
    """

    def size(path: str) -> tuple[int, int] | None:
        try:
            facts = known(path)
            if facts is None:
                with open_photo(path) as file:
                    facts = read_header(file, pixels=pixels)
        except (OSError, UnreadableImage):  # reading it reports it
            return None
        return facts.size

    paths = [path for split in layout.files.values() for path in split]
    chosen = np.unique(np.linspace(0, len(paths) - 1, HEADERS).astype(int))
    workers = REQUESTS if remote else None
    found = map_in_order(size, [paths[index] for index in chosen], workers)
    sizes = {one for one in found if one is not None}
    return (*sizes.pop(), pixels.channels) if len(sizes) == 1 else None
