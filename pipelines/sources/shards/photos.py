"""Images that are read as whole files out of something larger: an `ImageFiles`."""

import hashlib
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.sources.base import RawSource, Request, SourceError, SourceInfo
from pipelines.sources.blocks import Blocks
from pipelines.sources.decoding import read_header
from pipelines.sources.folder.discovery import printable
from pipelines.sources.folder.layout import Layout
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.folder.replacement import LostPhotos
from pipelines.sources.image_file import ImageFacts, UnreadableImage
from pipelines.sources.images import LazyImages, Shape
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.remote import Location
from pipelines.sources.shards.layout import PlacedImages, lay_out_images

T = TypeVar("T")

_HEADERS = 64  # images whose headers are compared to tell whether all seem to have one size


@dataclass(frozen=True)
class Container:
    """Where images are read from: shards, or a data set.

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
        fetch: see `Images.prefetch`; None: nothing is gained by it.
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
    fetch: Callable[[np.ndarray], None] | None = None


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
    )


def load_container(request: Request, container: Container) -> RawSource:
    """Returns the images of a container, read when they are accessed. Raises SourceError."""
    photos = _Photos(request, container)
    layout = photos.layout
    digest = hashlib.sha256(repr(sorted(container.sizes.items())).encode())
    return RawSource(
        images={split: photos.images(split) for split in layout.files},
        class_names=tuple(map(printable, layout.class_names)),
        fingerprint=digest.hexdigest(),
        notes=(*container.notes, *layout.notes),
        unlabelled_from=layout.unlabelled_from,
        likely_shape=None if request.image_size else photos.likely_shape(),
        files=photos,
    )


class _Photos:
    """Photos of a run, and the container that they are read from: an `ImageFiles`."""

    def __init__(self, request: Request, container: Container) -> None:
        self._container = container
        self.layout: Layout = lay_out_images(
            container.images, container.root, request.seed, request.layout
        )
        self.leaked = 0
        # Headers are in the index, or here.
        self.header_check = bool(container.facts) or not container.remote
        self.unreadable: tuple[tuple[str, str], ...] = ()
        self._by_header = request.check == "headers"
        names = container.images.names
        self._number = dict(zip(names, range(len(names)), strict=True))
        self._facts = _ByName(self._number, container.facts)
        self._reader = PhotoReader(
            self._open,
            _ByName(self._number, container.images.sizes),
            request.image_size,
            _KnownFacts(self._facts) if self._by_header and container.facts else None,
        )
        self._lost = LostPhotos(container.root, request.on_lost)
        self._skipped: dict[str, str] = {}  # printable name -> reason, of a resumed run
        if request.manifest is None:
            self.manifest = PhotoManifest(
                container.sizes, {}, by_blocks=container.blocks is not None
            )
            return
        self.manifest = request.manifest
        self._skipped = dict(request.manifest.skipped)
        self._lost.begin(
            int(request.max_unreadable_fraction * len(names)) - len(self._skipped),
            [name for name in names if printable(name) in self._skipped] if self._skipped else (),
        )

    @property
    def failure(self) -> SourceError | None:
        return self._lost.failure

    @property
    def lost(self) -> dict[str, str]:
        return self._lost.by_name

    def images(self, split: str) -> LazyImages:
        """Returns the photos of a split."""
        names, labels = self.layout.files[split], self.layout.labels.get(split)
        blocks, fetch = self._container.blocks, self._container.fetch
        numbers = np.array([self._number[name] for name in names], np.int64)
        return LazyImages(
            len(names),
            lambda index: self._lost.read(self._read, names, index, labels),
            labels,
            encoded=lambda index: self._reader.encoded(names[index]),
            shape_of=lambda index: self._lost.read(self._shape, names, index, labels),
            remote=self._container.remote,
            blocks=blocks and blocks.of(numbers),
            prefetch=None if fetch is None else lambda indices: fetch(numbers[indices]),
        )

    def likely_shape(self) -> Shape | None:
        """Returns the shape on which headers from all over the container agree, or None."""
        if not self.header_check:
            return None
        names = [name for split in self.layout.files.values() for name in split]
        shapes = set()
        for index in np.unique(np.linspace(0, len(names) - 1, _HEADERS).astype(int)):
            try:
                known = self._facts[names[index]] if self._container.facts else None
                shapes.add((known or read_header(self._open(names[index]))).size)
            except UnreadableImage:  # reading it reports it
                continue
        return (*shapes.pop(), 3) if len(shapes) == 1 else None

    def name(self, split: str, index: int) -> str:
        return printable(self.layout.files[split][index])

    def finish_reading(self, losses_allowed: int) -> tuple[str, ...]:
        self._lost.begin(losses_allowed)
        return tuple(self._reader.finish_counting())

    def find_copies(self, splits: Collection[str]) -> tuple[str, ...]:
        return ()  # that would read everything once more

    def save_scan(self) -> None:
        self._container.save()

    def _open(self, name: str) -> io.BytesIO:
        return io.BytesIO(self._container.read(self._number[name]))

    def _read(self, name: str) -> np.ndarray:
        # A photo that is readable by now stays skipped, or the order would change.
        if self._skipped and (reason := self._skipped.get(printable(name))) is not None:
            raise UnreadableImage(reason)
        return self._reader.read(name)

    def _shape(self, name: str) -> Shape:
        return self._reader.shape(name, by_header=self._by_header)


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
