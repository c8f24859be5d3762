"""Photos of one's own: any tree of image files, or a list of them. They are read and never
changed."""

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.sources import heic
from pipelines.sources.base import PhotoManifest, RawSource, Request, SourceError, SourceInfo
from pipelines.sources.decoding import UnreadableImage, read_header
from pipelines.sources.folder.discovery import DiscoveredFiles, existing_folder, printable, walk
from pipelines.sources.folder.image_list import read_list
from pipelines.sources.folder.layout import Layout, lay_out, lay_out_list
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.folder.replacement import MissingPhotos
from pipelines.sources.folder.scan_cache import Scan
from pipelines.sources.images import LazyImages, Shape

_HEADERS = (
    64  # files whose headers tell, before all are decoded, whether the photos seem to have one size
)


@dataclass(frozen=True)
class _Photos:
    """What `data.root` leads to.

    Attributes:
        folder: what paths are relative to.
        where: the photos' place, for people.
        found: all of them, for a run that goes on as they were when it began.
        now: as they are.
        layout: the same by split.
        class_of: of a list, the class of each path that has one.
    """

    folder: Path
    where: str
    found: DiscoveredFiles
    now: DiscoveredFiles
    layout: Layout
    class_of: Mapping[str, str]


def _looked_through(request: Request) -> _Photos:
    """Raises SourceError: see `read_list`, `lay_out_list`, `lay_out` and `_as_it_was`."""
    listed, roll = read_list(request.root), request.roll
    if listed is not None:
        folder, where, found, class_of = (
            listed.file.parent,
            f"in {listed.file}",
            listed.found,
            listed.class_of,
        )
    else:
        folder = existing_folder(request.root)
        where, found, class_of = f"below {folder}", walk(folder), {}
    now = found
    if roll is not None:
        found, class_of = (
            _as_it_was(folder, now, roll, request.max_unreadable_fraction),
            roll.class_of,
        )
    layout = (
        lay_out(folder, found, request.seed)
        if listed is None
        else lay_out_list(listed.file, found, class_of, request.seed)
    )
    return _Photos(folder, where, found, now, layout, class_of)


def _as_it_was(
    folder: Path, now: DiscoveredFiles, roll: PhotoManifest, max_unreadable_fraction: float
) -> DiscoveredFiles:
    """What was found when the run began. Raises SourceError if more of it has gone or changed than
    may be lost."""
    unreadable = dict(roll.skipped)
    total = len({*map(printable, roll.sizes), *unreadable})
    gone = [
        path
        for path, size in roll.sizes.items()
        if now.sizes.get(path) != size and printable(path) not in unreadable
    ]
    if len(gone) + len(unreadable) > max_unreadable_fraction * total and gone:
        raise SourceError(
            f"{folder}: {len(gone):,} of {total:,} photos that this run was begun with are gone or "
            "have changed, more than "
            f"data.max_unreadable_fraction = {max_unreadable_fraction:g} allows. For example "
            f"{', '.join(map(printable, gone[:5]))}. Bring those back, or "
            "use --fresh"
        )
    return DiscoveredFiles(dict(roll.sizes))


def describe(request: Request) -> SourceInfo:
    """Counts the photos by their names. Raises SourceError: see `_looked_through`."""
    photos = _looked_through(request)
    folder, layout = photos.folder, photos.layout
    counts = {split: len(paths) for split, paths in layout.files.items()}
    notes = _notes(photos)
    shape = _likely_shape(folder, layout)
    if shape is not None:
        notes.append(
            f"photos seem to be {shape[1]} x {shape[0]} pixels each, by "
            f"{min(_HEADERS, sum(counts.values()))} headers"
        )
    return SourceInfo(
        counts,
        len(layout.class_names),
        shape,
        unlabelled_from=layout.unlabelled_from,
        notes=tuple(notes),
    )


def load(request: Request) -> RawSource:
    """Finds the photos; they are decoded when they are read. Raises SourceError: see
    `_looked_through`."""
    photos = _looked_through(request)
    folder, found, layout = photos.folder, photos.found, photos.layout
    scan, roll = Scan(request.root, photos.now, request.scans), request.roll
    reader, losses = (
        PhotoReader(folder, found.sizes, request.image_size, scan),
        MissingPhotos(folder, request.on_lost),
    )
    unreadable = {} if roll is None else dict(roll.skipped)

    def read(path: str) -> np.ndarray:
        if (
            unreadable and (reason := unreadable.get(printable(path))) is not None
        ):  # it might be readable by now: the order would change
            raise UnreadableImage(reason)
        return reader.read(path)

    def images(paths: list[str], labels: np.ndarray | None) -> LazyImages:
        return LazyImages(
            len(paths),
            lambda index: losses.read(read, paths, index, labels),
            labels,
            encoded=lambda index: reader.encoded(paths[index]),
            shape_of=lambda index: losses.read(reader.shape, paths, index, labels),
        )

    if roll is not None:
        bad = [path for path in found.sizes if printable(path) in unreadable]
        losses.settle(
            int(request.max_unreadable_fraction * len(found.sizes)) - len(unreadable), bad
        )

    def after_reading(losses_allowed: int) -> tuple[str, ...]:
        losses.settle(losses_allowed)
        return (
            *reader.settle(),
            *(_duplicates_notes(folder, found.sizes, layout, scan) if roll is None else ()),
        )

    return RawSource(
        images={
            split: images(paths, layout.labels.get(split)) for split, paths in layout.files.items()
        },
        class_names=tuple(map(printable, layout.class_names)),
        fingerprint=_fingerprint(found.sizes, photos.class_of),
        notes=tuple(_notes(photos)),
        unlabelled_from=layout.unlabelled_from,
        likely_shape=None if request.image_size else _likely_shape(folder, layout, scan),
        file_name=lambda split, index: printable(layout.files[split][index]),
        skipped=_unopened(found) if roll is None else _unopened_then(roll),
        after_reading=after_reading,
        trouble=lambda: losses.error,
        roll=PhotoManifest(found.sizes, photos.class_of) if roll is None else roll,
        keep=scan.keep,
    )


def _unopened(found: DiscoveredFiles) -> tuple[tuple[str, str], ...]:
    return tuple((printable(path), reason) for path, reason in found.skipped.items())


def _unopened_then(roll: PhotoManifest) -> tuple[tuple[str, str], ...]:
    names = set(map(printable, roll.sizes))
    return tuple((path, reason) for path, reason in roll.skipped if path not in names)


def _notes(photos: _Photos) -> list[str]:
    found, layout = photos.found, photos.layout
    total = sum(map(len, layout.files.values()))
    bytes_ = sum(found.sizes[path] for paths in layout.files.values() for path in paths)
    notes = [f"{total:,} photos {photos.where}, {bytes_ / 1e6:,.1f} MB"]
    notes += layout.notes
    notes += heic.notes(found.sizes)
    if found.others:
        notes.append(found.others_note())
    return notes


def _fingerprint(sizes: Mapping[str, int], class_of: Mapping[str, str]) -> str:
    """Of paths and sizes, and of the classes that aren't in the paths."""
    digest = hashlib.sha256()
    for path, size in sizes.items():
        digest.update(os.fsencode(path) + b"\0" + str(size).encode() + b"\n")
        if path in class_of:
            digest.update(os.fsencode(class_of[path]) + b"\n")
    return digest.hexdigest()


def _likely_shape(folder: Path, layout: Layout, scan: Scan | None = None) -> Shape | None:
    """The shape that headers from all over the folder agree on, or None."""
    paths = [path for split in layout.files.values() for path in split]
    shapes = set()
    for index in np.unique(np.linspace(0, len(paths) - 1, _HEADERS).astype(int)):
        known = None if scan is None else scan.facts(paths[index])
        if known is not None:
            shapes.add((known.height, known.width))
            continue
        try:
            with open(folder / paths[index], "rb") as file:
                shapes.add(read_header(file))
        except (OSError, UnreadableImage):  # the pass over all files reports it
            continue
    return (*shapes.pop(), 3) if len(shapes) == 1 else None


def _duplicates_notes(
    folder: Path, sizes: Mapping[str, int], layout: Layout, scan: Scan
) -> list[str]:
    """Says how many files are copies of others, and how many test photos a run could have seen."""
    split_of = {path: split for split, paths in layout.files.items() for path in paths}
    by_size: dict[int, list[str]] = defaultdict(list)
    for path in split_of:
        by_size[sizes[path]].append(path)
    copies, seen_in_test = 0, 0
    for paths in by_size.values():
        if len(paths) < 2:
            continue
        same: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            with contextlib.suppress(OSError):  # reported already
                same[scan.digest(folder, path)].append(path)
        for group in same.values():
            copies += len(group) - 1
            tests = sum(split_of[path] == "test" for path in group)
            seen_in_test += tests if tests < len(group) else 0
    notes = []
    if copies:
        notes.append(f"{copies:,} file(s) are exact copies of others")
    if seen_in_test:
        notes.append(f"{seen_in_test:,} test photo(s) are also among the photos to learn from")
    return notes
