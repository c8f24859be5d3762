"""The source "folder": any tree of image files, or a list of them. They are never changed."""

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import replace

from pipelines.sources import heic
from pipelines.sources.base import RawSource, Request, SourceError, SourceInfo
from pipelines.sources.folder.discovery import (
    DiscoveredFiles,
    abbreviated,
    photo_folder,
    printable,
    walk,
)
from pipelines.sources.folder.files import PhotoFolder
from pipelines.sources.folder.image_list import read_list
from pipelines.sources.folder.layout import Layout, lay_out
from pipelines.sources.folder.reader import PhotoReader
from pipelines.sources.folder.scan_cache import ScanCache
from pipelines.sources.image_file import longest_file
from pipelines.sources.images import Shape
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.own_photos import HEADERS, OwnPhotos, likely_shape
from pipelines.sources.pixels import PixelFormat
from pipelines.sources.remote import RemotePath
from pipelines.sources.unreadable import check_unreadable


def describe(request: Request) -> SourceInfo:
    """Counts the photos by their names. Raises SourceError."""
    files, current = _discover(request)
    layout = lay_out(files, request.seed, request.layout)
    counts = {split: len(paths) for split, paths in layout.files.items()}
    notes = _notes(files, layout)
    if new := current.sizes.keys() - files.sizes.keys():
        notes.append(
            f"{len(new):,} photo(s) have come since the run was started, and aren't used; a new "
            "run uses them"
        )
    shape = _likely_shape(files, layout, request.pixels)
    if shape is not None:
        notes.append(
            f"photos seem to be {shape[1]} x {shape[0]} pixels each, by "
            f"{min(HEADERS, sum(counts.values()))} headers"
        )
    return SourceInfo(
        counts,
        len(layout.class_names),
        shape,
        notes=tuple(notes),
        unlabelled_from=layout.unlabelled_from,
        class_counts=layout.class_counts,
        fingerprint=_fingerprint(files),
    )


def load(request: Request) -> RawSource:
    """Finds the photos, which are decoded when they are read. Raises SourceError."""
    photos = _FolderPhotos(request)
    files, layout = photos.discovered, photos.layout
    return RawSource(
        images={split: photos.images(split) for split in layout.files},
        class_names=tuple(map(printable, layout.class_names)),
        fingerprint=_fingerprint(files),
        notes=tuple(_notes(files, layout)),
        unlabelled_from=layout.unlabelled_from,
        likely_shape=None
        if request.image_size
        else _likely_shape(files, layout, request.pixels, photos.scan),
        files=photos,
    )


class _FolderPhotos(OwnPhotos):
    """Photos of a folder, or of a list."""

    def __init__(self, request: Request) -> None:
        self.discovered, current = _discover(request)
        folder, sizes = self.discovered.folder, self.discovered.sizes
        self.scan = ScanCache(
            request.root or "", current, request.scan_folder, request.check, request.pixels
        )
        super().__init__(
            request,
            folder,
            lay_out(self.discovered, request.seed, request.layout),
            PhotoReader(
                PhotoFolder(folder, sizes).open,
                sizes,
                request.image_size,
                self.scan,
                request.pixels,
            ),
            sizes,
            PhotoManifest(sizes, self.discovered.class_of),
            remote=isinstance(folder, RemotePath),
        )
        self.header_check = not self._remote
        if request.manifest is None:
            self.unreadable = tuple(
                (printable(path), reason) for path, reason in self.discovered.skipped.items()
            )
        else:
            names = set(map(printable, sizes))
            self.unreadable = tuple(
                item for item in request.manifest.skipped if item[0] not in names
            )

    def save_scan(self) -> None:
        self.scan.save()

    def find_copies(self, splits: Collection[str]) -> tuple[str, ...]:
        folder = self.discovered.folder
        if isinstance(folder, RemotePath):  # comparing would download all files of equal size
            return ()
        split_of = {path: split for split in splits for path in self.layout.files[split]}
        by_size: dict[int, list[str]] = defaultdict(list)
        for path in split_of:
            by_size[self.discovered.sizes[path]].append(path)
        copies = leaked = 0
        for size, paths in by_size.items():
            if len(paths) < 2:
                continue
            by_digest: dict[str, list[str]] = defaultdict(list)
            for path in paths:
                if size > longest_file(self.scan.facts(path), self._pixels.channels):
                    continue
                with contextlib.suppress(OSError):  # reported already
                    by_digest[self.scan.digest(folder, path)].append(path)
            for group in by_digest.values():
                copies += len(group) - 1
                tests = sum(split_of[path] == "test" for path in group)
                leaked += tests if tests < len(group) else 0
        self.leaked = leaked
        notes = []
        if copies:
            notes.append(f"{copies:,} file(s) are exact copies of others")
        if leaked:
            notes.append(
                f"{leaked:,} of {len(self.layout.files['test']):,} test photo(s) are also "
                "among the photos to learn from, so accuracies are too high"
            )
        return tuple(notes)


def _discover(request: Request) -> tuple[DiscoveredFiles, DiscoveredFiles]:
    """Returns the photos of the run, and those that are there now.

    Raises:
        SourceError: there is no such folder or list, too many photos of a resumed run are gone, or
            too many of a new one can't be read, as far as that shows without opening them.
    """
    current = read_list(request.root)
    if current is None:
        current = walk(photo_folder(request.root), request.pixels)
    if request.manifest is None:
        check_unreadable(
            request.root,
            {printable(path): reason for path, reason in current.skipped.items()},
            len(current.sizes) + len(current.skipped),
            request.max_unreadable_fraction,
        )
        return current, current
    _check_still_there(current, request.manifest, request.max_unreadable_fraction)
    restored = replace(
        current,
        sizes=dict(request.manifest.sizes),
        class_of=request.manifest.class_of,
        modified={},
        skipped={},
        others=Counter(),
    )
    return restored, current


def _check_still_there(
    current: DiscoveredFiles, manifest: PhotoManifest, max_unreadable_fraction: float
) -> None:
    """Raises SourceError if more photos of a resumed run are gone or changed than may be lost."""
    unreadable = dict(manifest.skipped)
    total = len({*map(printable, manifest.sizes), *unreadable})
    gone = [
        path
        for path, size in manifest.sizes.items()
        if current.sizes.get(path) != size and printable(path) not in unreadable
    ]
    if gone and len(gone) + len(unreadable) > max_unreadable_fraction * total:
        raise SourceError(
            f"{current.folder}: {len(gone):,} of {total:,} photos that this run began with are "
            "gone or have changed, more than data.max_unreadable_fraction = "
            f"{max_unreadable_fraction:g} allows. For example "
            f"{', '.join(map(printable, gone[:5]))}. Bring those back, or start a new run in "
            "another folder"
        )


def _notes(files: DiscoveredFiles, layout: Layout) -> list[str]:
    total = sum(map(len, layout.files.values()))
    megabytes = sum(files.sizes[path] for paths in layout.files.values() for path in paths) / 1e6
    origin = f"below {files.folder}" if files.list_file is None else f"in {files.list_file}"
    notes = [f"{total:,} photos {origin}, {megabytes:,.1f} MB"]
    notes += files.skipped_notes()
    notes += layout.notes
    notes += files.passed_over_notes()
    if files.ignored_columns:
        notes.append(f"columns that aren't read: {abbreviated(files.ignored_columns)}")
    notes += heic.notes(files.sizes)
    if files.others:
        notes.append(files.others_note())
    return notes


def _fingerprint(files: DiscoveredFiles) -> str:
    """Returns a digest of paths and sizes, and of the classes that aren't in the paths."""
    digest = hashlib.sha256()
    for path, size in files.sizes.items():
        digest.update(os.fsencode(path) + b"\0" + str(size).encode() + b"\n")
        if path in files.class_of:
            digest.update(os.fsencode(files.class_of[path]) + b"\n")
    return digest.hexdigest()


def _likely_shape(
    files: DiscoveredFiles, layout: Layout, pixels: PixelFormat, scan: ScanCache | None = None
) -> Shape | None:
    return likely_shape(
        layout,
        (lambda path: None) if scan is None else scan.facts,
        PhotoFolder(files.folder, files.sizes).open,
        pixels,
        remote=isinstance(files.folder, RemotePath),
    )
