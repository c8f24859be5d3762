"""Types shared by all image sources.

For a `Request`, a source describes what it has (`SourceInfo`) and loads it (`RawSource`);
`building.py` selects, resizes and caches from that what a run uses (`Source`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.sources.images import Images, Shape
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.pixels import PixelFormat

SPLITS = ("unlabelled", "train", "test")

GivenSplit = np.ndarray | tuple[np.ndarray, np.ndarray] | Images
"""Images in Python: uint8 or uint16 `[N, H, W, channels]`, alone or with integer labels `[N]`."""
GivenImages = GivenSplit | Mapping[str, GivenSplit]
"""Those of one split, or of each of several."""

Progress = Callable[[str, int, int], None]
"""Called with (a description of the work, number of images done, their total number)."""

OnLost = Callable[[str, str], None]
"""Called, by any thread, with (path below the root, reason) of a photo that has become
unreadable."""


class SourceError(Exception):
    """The images can't be had as requested.

    The text says what is wrong, with the path or key, and what would be right.
    """


def check_reachable(path: Path, key: str) -> None:
    """Raises `SourceError` if the system can't look at a path: a dead disk, too long a name.

    Args:
        path: that may be missing.
        key: its key or option.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{key}: {path} can't be read: {reason}") from error


def ignore_progress(work: str, done: int, total: int) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Request:
    """The request that opens a source: the section `data` of a config, and callbacks.

    Attributes:
        source: name of the source.
        root: the folder of photos, or a list of them; the shards, see `find_shards`; the
            name of a Hugging Face data set; for TFDS, the folder of prepared data sets (None:
            TFDS's default).
        archive: TFDS without network: the downloaded file; for "imagenet" the folder with its two
            tars.
        pretrain: "unlabelled", "train" or "train+unlabelled"; None: the unlabelled images where
            there are any, else train.
        pretrain_images: largest number of images to pre-train on, sampled by the seed; for
            "textures", the number that is generated.
        image_size: the shorter side is resized to it and the centre cropped; None: images stay as
            they are (digits: 32).
        channels: of every image, 1 to 16.
        depth: bits of their pixels: 8, uint8; or 16, uint16.
        range: (low, high), the numbers in a file that become 0 and white; see `PixelFormat`.
        cache: "memory" keeps all images decoded, "none" reads them each time, "auto" keeps them if
            they fit into half of the free memory.
        max_unreadable_fraction: of own photos: a larger fraction of unreadable files is an error,
            both when it is opened and while it is read.
        layout: of own photos: what subfolders are, one of `folder.layout.LAYOUTS`.
        seed: of every sample.
        on_progress: called while images are read.
        check: of own photos: what of each photo is read when it is opened: "pixels", so that all
            unreadable ones are known and skipped; or "headers", which is sooner done, so that one
            whose pixels can't be decoded is lost when it is first used.
        on_lost: of own photos: called once for each that can't be read later on; another photo
            of its label then replaces it. None: no photo is replaced, and the first one lost is an
            error.
        manifest: of own photos: those, or their shards, of the run that is resumed. Those that were
            unreadable then are skipped unopened; those that have gone or changed since are treated
            as lost during the run; new ones are ignored.
        scan_folder: where facts about own photos are cached (see `folder/scan_cache.py`);
            None: nowhere. Only `Source.save_scan` writes there.
        images: for "arrays": the images themselves. Without a split, those with labels are "train"
            and others "unlabelled".
    """

    source: str
    root: str | None = None
    archive: str | None = None
    pretrain: str | None = None
    pretrain_images: int | None = None
    image_size: int | None = None
    channels: int = 3
    depth: int = 8
    range: tuple[float, float] | None = None
    cache: str = "auto"
    max_unreadable_fraction: float = 0.01
    layout: str = "auto"
    seed: int = 0
    on_progress: Progress = ignore_progress
    check: str = "pixels"
    on_lost: OnLost | None = None
    manifest: PhotoManifest | None = None
    scan_folder: str | None = None
    images: GivenImages | None = None

    @property
    def pixels(self) -> PixelFormat:
        """Channels, depth and range of the images."""
        return PixelFormat(self.channels, self.depth, self.range)


@dataclass(frozen=True)
class SourceInfo:
    """Counts and sizes of a source's images, known without downloading, decoding or writing any.

    A source's `describe` returns it for all that the source has, `plan_source` for what a run uses.

    Attributes:
        counts: number of images by split; a plan's are "pretrain", "train" and "test", 0 where
            there are none. Unreadable files are included.
        classes: number of classes, 0 without labels.
        class_counts: number of labelled images of each class, where a folder or list names them.
        image_shape: `(height, width, channels)`, or None where images differ.
        notes: lines about the data, for people.
        unlabelled_from: the splits that make up the unlabelled images.
        in_memory: whether the images are kept in memory; of a description: whatever `cache` says.
        bytes_in_memory: their size there; 0 where they are not kept.
        ready: whether opening the source downloads and writes nothing.
        fingerprint: of own photos, see `Source`; None of images that don't change.
    """

    counts: Mapping[str, int]
    classes: int
    image_shape: Shape | None
    notes: tuple[str, ...] = ()
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    in_memory: bool = False
    bytes_in_memory: int = 0
    ready: bool = True
    class_counts: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str | None = None


class ImageFiles(ABC):
    """Files of a source that may be unreadable or become so.

    Attributes:
        manifest: the run's photos.
        unreadable: (printable path, reason) of each file known to be unreadable without opening it.
        leaked: number of test images that are exact copies of images to learn from; None until
            `find_copies` has compared them, and where it can't.
        header_check: whether reading each file's header takes little time. Where it doesn't, files
            that are opened by their headers aren't checked at all before their first use.
    """

    manifest: PhotoManifest
    unreadable: tuple[tuple[str, str], ...] = ()
    leaked: int | None = None
    header_check: bool = True

    @property
    @abstractmethod
    def failure(self) -> SourceError | None:
        """The reason why images can't be read any more; None while all is well."""

    @abstractmethod
    def name(self, split: str, index: int) -> str:
        """Returns the printable path of an image."""

    @abstractmethod
    def finish_reading(self, losses_allowed: int) -> tuple[str, ...]:
        """Ends the first pass over all images; a file that can't be read from now on is lost.

        Args:
            losses_allowed: number of files that may be lost.

        Returns:
            Lines about the files, for people.
        """

    def find_copies(self, splits: Collection[str]) -> tuple[str, ...]:
        """Compares files of equal size; by default none, as that may read everything once more.

        Args:
            splits: those in use.

        Returns:
            Lines about files that are exact copies of others, for people.
        """
        return ()

    def save_scan(self) -> None:  # noqa: B027 - by default nothing is written
        """Writes what the first pass found to the request's `scan_folder`, if that is possible."""


@dataclass(frozen=True)
class RawSource:
    """All images of a source, before any is selected, resized or cached.

    Attributes:
        images: by split; "train" and "test" with labels.
        class_names: the name of each label.
        fingerprint: see `Source`.
        notes: lines about the data, for people.
        unlabelled_from: the splits that make up the unlabelled images.
        likely_shape: the shape that a sample of the images has, where `Images.shape` is None
            because not all have been decoded.
        files: where they may be unreadable.
    """

    images: Mapping[str, Images]
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    likely_shape: Shape | None = None
    files: ImageFiles | None = None


@dataclass(frozen=True)
class Source:
    """Images to pre-train on, and labelled ones to evaluate with.

    Attributes:
        name: of the source: "folder", "stl10", ...
        pretrain: images to pre-train on; their `labels` are None.
        train: labelled images that a probe is trained on, or None where there are no labels.
        test: labelled images that a probe is evaluated on, or None.
        class_names: the name of each label, 0 upwards; empty where there are no labels.
        skipped: (path below the root, reason) of each unreadable file.
        notes: lines about the data, for people.
        findings: those of the notes that only reading the images could tell.
        splits: of the images in use.
        fingerprint: SHA-256 in hexadecimal that identifies the data.
        manifest: of own photos (folders, shards, Hugging Face), for `Request.manifest` when the run
            is resumed; else None.
        files: where they may be unreadable or become so.
    """

    name: str
    pretrain: Images
    train: Images | None
    test: Images | None
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    fingerprint: str
    manifest: PhotoManifest | None = None
    files: ImageFiles | None = None
    findings: tuple[str, ...] = ()
    splits: frozenset[str] = frozenset()

    @property
    def leaked(self) -> int | None:
        """Number of test images that are copies of images to learn from; None if not compared."""
        return None if self.files is None else self.files.leaked

    def find_copies(self) -> tuple[str, ...]:
        """Finds exact copies, by comparing files of equal size, and counts those in `leaked`.

        Returns:
            Lines about files that are exact copies of others, for people.
        """
        return () if self.files is None else self.files.find_copies(self.splits)

    def failure(self) -> SourceError | None:
        """Returns why images that were readable can't be read any more; None while all is well.

        An exception that passes through tf.data comes out as one of TensorFlow's own; this is the
        original.
        """
        return None if self.files is None else self.files.failure

    def save_scan(self) -> None:
        """Caches what opening the source found, so that the next start is faster."""
        if self.files is not None:
            self.files.save_scan()


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Returns a generator for one purpose, so that no sample depends on another."""
    return np.random.default_rng([seed, *purpose.encode()])
