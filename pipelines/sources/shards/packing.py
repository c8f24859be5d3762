"""Packs a folder of photos into shards that hold the same images in the same order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines.sources.decoding import read_header
from pipelines.sources.folder.discovery import photo_folder, printable, walk
from pipelines.sources.folder.files import PhotoFolder
from pipelines.sources.folder.layout import lay_out
from pipelines.sources.image_file import TOO_LONG, UnreadableImage, longest_file
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.writing import SUFFIXES, PackedPhoto, write_shard


@dataclass(frozen=True)
class PlannedShard:
    """A shard that is to be written.

    Attributes:
        name: of the file.
        paths: of its photos, below the folder, in order.
        classes: of each, or None.
    """

    name: str
    paths: tuple[str, ...]
    classes: tuple[str | None, ...]


class Packing:
    """The outcome of packing a folder's photos.

    Args:
        root: the folder.
        layout: as of `Request`.
        format: one of `writing.SUFFIXES`.
        shard_bytes: bytes of photos after which another shard begins.
        pixels: that a run decodes the photos to; what it couldn't read is skipped.

    Attributes:
        folder: the folder.
        class_names: ascending; empty where there are no labels.
        shards: those to write.
        skipped: printable path -> reason, of each file that can't be a photo, or has no place in
            the folder's layout.
        notes: lines for people.
        state: size and time of the last change of each photo.

    Raises:
        SourceError: see `lay_out`.
    """

    def __init__(
        self, root: str, layout: str, format: str, shard_bytes: int, pixels: PixelFormat = RGB
    ) -> None:
        self.folder = photo_folder(root, "--images")
        self._format, self._pixels = format, pixels
        files = walk(self.folder, pixels)
        placed = lay_out(files, 0, layout)
        self.class_names, self.notes = placed.class_names, placed.notes
        self.state = {path: (size, files.modified[path]) for path, size in files.sizes.items()}
        self._files = PhotoFolder(self.folder, files.sizes)
        self.skipped = {printable(path): reason for path, reason in files.skipped.items()}
        # Photos by the first word of their shards' names: train and test are divided again by the
        # seed of each run, where a folder doesn't divide them.
        groups: dict[str, list[tuple[str, int | None]]] = {}
        all_labelled = placed.unlabelled_from != ("unlabelled",)
        for split, paths in placed.files.items():
            labels = placed.labels.get(split)
            name = split
            if placed.divided and labels is not None:
                name = "photos" if all_labelled else "train"
            groups.setdefault(name, []).extend(
                (path, None if labels is None else int(label))
                for path, label in zip(
                    paths, [None] * len(paths) if labels is None else labels, strict=True
                )
            )
        if placed.divided:
            order = {path: number for number, path in enumerate(files.sizes)}
            for photos in groups.values():
                photos.sort(key=lambda photo: (photo[1] or 0, order[photo[0]]))
        used = {path for photos in groups.values() for path, _ in photos}
        for path in files.sizes.keys() - used:
            self.skipped[printable(path)] = "it lies in no split or class"
        self.shards = [
            PlannedShard(
                f"{name}-{number:05}{SUFFIXES[format]}",
                tuple(path for path, _ in part),
                tuple(None if label is None else self.class_names[label] for _, label in part),
            )
            for name, photos in sorted(groups.items())
            for number, part in enumerate(_parts(photos, files.sizes, shard_bytes))
        ]

    def write(self, shard: PlannedShard, file: Path) -> dict[str, str]:
        """Writes a shard; returns printable path -> reason of the photos that it hasn't."""
        skipped: dict[str, str] = {}
        write_shard(self._format, file, self._photos(shard, skipped), self.class_names)
        return skipped

    def _photos(self, shard: PlannedShard, skipped: dict[str, str]) -> Iterator[PackedPhoto]:
        for path, name in zip(shard.paths, shard.classes, strict=True):
            try:
                with self._files.open(path) as file:
                    if self._files.sizes[path] == 0:
                        raise UnreadableImage("empty file")
                    facts = read_header(file, pixels=self._pixels)
                    if self._files.sizes[path] > longest_file(facts, self._pixels.channels):
                        raise UnreadableImage(TOO_LONG)
                    file.seek(0)
                    yield PackedPhoto(path, name, file.read())
            except (OSError, UnreadableImage) as error:
                skipped[printable(path)] = getattr(error, "strerror", None) or str(error)


def _parts(
    photos: list[tuple[str, int | None]], sizes: Mapping[str, int], limit: int
) -> Iterable[list[tuple[str, int | None]]]:
    part: list[tuple[str, int | None]] = []
    total = 0
    for photo in photos:
        if part and total + sizes[photo[0]] > limit:
            yield part
            part, total = [], 0
        part.append(photo)
        total += sizes[photo[0]]
    if part:
        yield part
