"""Images that are read as whole files out of something larger: an `ImageFiles`."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.sources.base import RawSource, Request, SourceInfo
from pipelines.sources.blocks import Blocks
from pipelines.sources.folder.discovery import printable
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.image_file import ImageFacts
from pipelines.sources.images import Shape
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.own_photos import OwnPhotos, likely_shape
from pipelines.sources.remote import Location
from pipelines.sources.shards.layout import PlacedImages, lay_out_images

T = TypeVar("T")


@dataclass(frozen=True)
class Container:
    """The place that images are read from: shards, or a data set.

    Attributes:
        root: for messages.
        images: what it holds.
        read: number of an image -> its file. Raises UnreadableImage, SourceError.
        sizes: bytes of each part of it, by name; the same content has the same.
        facts: what the header of each image states, or None; empty where nothing is known.
        notes: lines for people.
        remote: whether reading an image waits for a server.
        save: writes what was found out to the request's `scan_folder`.
        blocks: see `Images.blocks`.
        fetch: indices of images that are read soon -> None, see `Images.prefetch`.
    """

    root: Location
    images: PlacedImages
    read: Callable[[int], bytes]
    sizes: dict[str, int]
    notes: tuple[str, ...]
    facts: Sequence[ImageFacts | None] = ()
    remote: bool = False
    save: Callable[[], None] = lambda: None
    blocks: Blocks | None = None
    fetch: Callable[[np.ndarray], None] = lambda indices: None


def describe_container(request: Request, container: Container) -> SourceInfo:
    """Counts the images of a container. Raises SourceError."""
    photos = _Photos(request, container)
    layout = photos.layout
    return SourceInfo(
        {split: len(names) for split, names in layout.files.items()},
        len(layout.class_names),
        photos.likely_shape(),
        notes=(*container.notes, *layout.notes),
        unlabelled_from=layout.unlabelled_from,
        class_counts=layout.class_counts,
        fingerprint=_fingerprint(container),
    )


def load_container(request: Request, container: Container) -> RawSource:
    """Returns the images of a container, read when they are accessed. Raises SourceError."""
    photos = _Photos(request, container)
    layout = photos.layout
    return RawSource(
        images={split: photos.images(split) for split in layout.files},
        class_names=tuple(map(printable, layout.class_names)),
        fingerprint=_fingerprint(container),
        notes=(*container.notes, *layout.notes),
        unlabelled_from=layout.unlabelled_from,
        likely_shape=None if request.image_size else photos.likely_shape(),
        files=photos,
    )


class _Photos(OwnPhotos):
    """Photos of a run, and the container that they are read from."""

    def __init__(self, request: Request, container: Container) -> None:
        self._container = container
        names = container.images.names
        self._number = dict(zip(names, range(len(names)), strict=True))
        self._facts = _ByName(self._number, container.facts)
        known = request.check == "headers" and container.facts
        super().__init__(
            request,
            container.root,
            lay_out_images(container.images, container.root, request.seed, request.layout),
            PhotoReader(
                self._open,
                _ByName(self._number, container.images.sizes),
                request.image_size,
                _KnownFacts(self._facts) if known else None,
                request.pixels,
            ),
            names,
            PhotoManifest(container.sizes, {}, by_blocks=container.blocks is not None),
            remote=container.remote,
        )
        # The index has headers of shards; where it hasn't, reading one reads a block.
        self.header_check = bool(container.facts) or not container.remote

    def likely_shape(self) -> Shape | None:
        """Returns the shape on which headers from all over the container agree, or None."""
        if not self.header_check:
            return None
        known = self._facts.__getitem__ if self._container.facts else lambda name: None
        return likely_shape(
            self.layout, known, self._open, self._pixels, remote=self._container.remote
        )

    def save_scan(self) -> None:
        """See `ImageFiles`."""
        self._container.save()

    def _open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self._container.read(self._number[name]))

    def _blocks(self, paths: Sequence[str]) -> Blocks | None:
        return self._container.blocks and self._container.blocks.of(self._numbers(paths))

    def _prefetch(self, paths: Sequence[str]) -> None:
        self._container.fetch(self._numbers(paths))

    def _numbers(self, names: Sequence[str]) -> np.ndarray:
        return np.array([self._number[name] for name in names], np.int64)


class _ByName(Mapping[str, T]):
    """Values of images by their names: one dictionary of millions of names is enough."""

    def __init__(self, number: Mapping[str, int], values: Sequence[T]) -> None:
        self._number, self._values = number, values

    def __getitem__(self, name: str) -> T:
        return self._values[self._number[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._number)

    def __len__(self) -> int:
        return len(self._number)


class _KnownFacts:
    """Facts that an index has of images: a `FactsCache` that is complete."""

    def __init__(self, known: Mapping[str, ImageFacts | None]) -> None:
        self._known = known

    def facts(self, path: str) -> ImageFacts | None:
        return self._known[path]

    def record(self, path: str, facts: ImageFacts | None) -> None:
        pass


def _fingerprint(container: Container) -> str:
    return hashlib.sha256(repr(sorted(container.sizes.items())).encode()).hexdigest()
