"""What a source is to those who use it, and what is asked of it."""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import numpy as np

from pipelines.sources.images import Images, Shape


@dataclass(frozen=True)
class PhotoManifest:
    """What was found by name, and what came of reading it.

    Attributes:
        sizes: bytes of each photo, by its path below the root with "/", ascending.
        class_of: the class of each path that a list named one for.
        skipped: (path as it is printed, reason) of what couldn't be read.
        shapes: of each split that was used, the common shape of its images, or None where they
            differ.
    """

    sizes: Mapping[str, int]
    class_of: Mapping[str, str]
    skipped: tuple[tuple[str, str], ...] = ()
    shapes: Mapping[str, Shape | None] | None = None

    def packed(self) -> bytes:
        """As a file's content. The same photos give the same bytes."""
        return gzip.compress(json.dumps(asdict(self)).encode(), compresslevel=6, mtime=0)


def unpacked(content: bytes) -> PhotoManifest:
    """What `packed` gave. Raises ValueError where it is something else."""
    try:
        fields = json.loads(gzip.decompress(content))
        shapes = {
            split: None if shape is None else tuple(shape)
            for split, shape in fields["shapes"].items()
        }
        return PhotoManifest(
            fields["sizes"],
            fields["class_of"],
            tuple((path, reason) for path, reason in fields["skipped"]),
            shapes,
        )
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(f"expected the list of photos that a run wrote; {error}") from error


Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how many images are done, of how many)."""

Lost = Callable[[str, str], None]
"""Called with (path below the root, reason) of a photo that could be read once and can't be any
more. Threads call it."""


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def _nothing_read(losses_allowed: int) -> tuple[str, ...]:
    """No notes."""
    return ()


def _no_trouble() -> None:
    """Nothing that was read is lost."""


def _nothing_to_keep() -> None:
    """Nothing was found out that the next start could use."""


SPLITS = ("unlabelled", "train", "test")


class SourceError(Exception):
    """The images can't be had as asked. The text says what is wrong, where it was looked for and
    what would be right."""


@dataclass(frozen=True)
class Source:
    """Images to learn from and labelled ones to judge by.

    Attributes:
        name: "folder", "stl10", ...
        pretrain: what BYOL learns from; its `labels` are None.
        train: labelled images that a probe learns from, or None where there are no labels.
        test: labelled images that a probe is judged on, or None.
        class_names: the name of each label, 0 upwards; empty where there are no labels.
        skipped: for each file that was left out: its path below the root, and why.
        notes: lines about the data for people.
        fingerprint: sha256 in hexadecimal that identifies the data.
        trouble: returns why images can't be read any more that could be when the source was opened;
            None while all is well. An exception that passes through tf.data comes out as
            TensorFlow's own; this is the original.
        roll: of "folder": its photos, to open it with when the run goes on; else None.
        keep: writes what was found out into `Request.scans`, for the next start. No error where
            that can't be.
    """

    name: str
    pretrain: Images
    train: Images | None
    test: Images | None
    class_names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    fingerprint: str
    trouble: Callable[[], SourceError | None] = _no_trouble
    roll: PhotoManifest | None = None
    keep: Callable[[], None] = _nothing_to_keep


@dataclass(frozen=True)
class SourcePlan:
    """What opening a source would give, found out without writing, downloading or decoding
    anything.

    Attributes:
        counts: images in "pretrain", "train" and "test" (0 where there is none). Unreadable files
            are still counted.
        classes: number of classes, 0 without labels.
        image_shape: `(height, width, 3)`, or None where images differ.
        notes: lines about the data for people.
        in_memory: whether the images would be held in memory.
        bytes_in_memory: how much they would take there; 0 where they are not held.
    """

    counts: Mapping[str, int]
    classes: int
    image_shape: Shape | None
    notes: tuple[str, ...]
    in_memory: bool
    bytes_in_memory: int


@dataclass(frozen=True)
class Request:
    """What is asked of a source.

    Attributes:
        source: "textures", "digits", "folder", "stl10", "cifar10" or "imagenet".
        root: the folder of photos, or the list of them; for TFDS, where prepared data sets lie
            (None: TFDS's own place).
        archive: TFDS without network: the downloaded file; for "imagenet" the folder with its two
            tars.
        pretrain: "unlabelled", "train" or "train+unlabelled"; None: the unlabelled images where
            there are any, else train.
        pretrain_images: at most so many to pre-train on, drawn by the seed; for "textures", how
            many are drawn.
        image_size: the shorter side is resized to it and the centre cut out; None: images stay as
            they are (digits: 32).
        cache: "memory" holds all images as uint8, "none" reads them each time, "auto" holds them if
            they fit into half of the free memory.
        max_unreadable_fraction: for "folder": a larger share of unreadable files is an error, be it
            when it is opened or while it is read.
        seed: of every draw.
        on_progress: called with (what is being done, images done, of how many).
        on_lost: for "folder": called once for each photo that can't be read any more, when another
            one of its label takes its place. None: there is no taking another's place, and the
            first loss is an error.
        roll: for "folder": the photos that are meant. What couldn't be read then is left out again,
            unopened; what has gone or changed since is lost as if it had gone while it was used;
            what has come since is left out.
        scans: for "folder": the folder where what was found out about photos is kept (see
            `folder/scan_cache.py`); None: nowhere. Only `Source.keep` writes there.
    """

    source: str
    root: str | None = None
    archive: str | None = None
    pretrain: str | None = None
    pretrain_images: int | None = None
    image_size: int | None = None
    cache: str = "auto"
    max_unreadable_fraction: float = 0.01
    seed: int = 0
    on_progress: Progress = _silent
    on_lost: Lost | None = None
    roll: PhotoManifest | None = None
    scans: str | None = None


@dataclass(frozen=True)
class SourceInfo:
    """What a source would give before anything is chosen, resized or held.

    Attributes:
        counts: images in each of the `SPLITS` that the source has.
        classes: number of classes.
        shape: common shape of the images as they are, or None.
        always_in_memory: the source makes arrays, whatever `cache` says.
        unlabelled_from: the splits that make up the unlabelled images.
        notes: lines for people.
        ready: opening it downloads and writes nothing.
    """

    counts: Mapping[str, int]
    classes: int
    shape: Shape | None
    always_in_memory: bool = False
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    notes: tuple[str, ...] = ()
    ready: bool = True


@dataclass(frozen=True)
class RawSource:
    """The images themselves, before anything is chosen, resized or held.

    Attributes:
        images: those of the `SPLITS` that the source has; "train" and "test" with labels.
        class_names: the name of each label.
        fingerprint: see `Source`.
        notes: lines for people.
        unlabelled_from: the splits that make up the unlabelled images.
        likely_shape: common shape that the images seem to have, where their `shape` is None because
            nobody has decoded them all.
        file_name: (split, index) -> the file an image comes from. Given where files may be
            unreadable: each is then decoded once.
        skipped: (file, reason) of what was seen to be unreadable without opening it.
        after_reading: called when all that is used has been decoded, with the number of files that
            may yet become unreadable; gives lines for people.
        trouble: see `Source`.
        roll: what was found by name, where files may be unreadable.
        keep: see `Source`.
    """

    images: Mapping[str, Images]
    class_names: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    likely_shape: Shape | None = None
    file_name: Callable[[str, int], str] | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    after_reading: Callable[[int], tuple[str, ...]] = _nothing_read
    trouble: Callable[[], SourceError | None] = _no_trouble
    roll: PhotoManifest | None = None
    keep: Callable[[], None] = _nothing_to_keep


def stream(seed: int, name: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that one draw never shifts another."""
    return np.random.default_rng([seed, *name.encode()])
