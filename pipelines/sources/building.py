"""From what a source has to what is used of it: which images to pre-train on, their size, where
they are kept."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import psutil

from pipelines.sources.base import (
    SPLITS,
    PhotoManifest,
    RawSource,
    Request,
    Source,
    SourceError,
    SourceInfo,
    SourcePlan,
    stream,
)
from pipelines.sources.images import (
    ArrayImages,
    Images,
    concatenated,
    resized,
    subset,
    without_labels,
)
from pipelines.sources.loading import Reading, read_through

_SHARE_OF_MEMORY = 0.5  # "auto" takes at most this much of what is free


@dataclass(frozen=True)
class _Use:
    """Which images of each split are used.

    Attributes:
        pretrain: for the splits to pre-train on, indices into the split, ascending.
        splits: every split that is used at all, with the number of its images that are.
    """

    pretrain: Mapping[str, np.ndarray]
    splits: Mapping[str, int]


def build_plan(request: Request, outline: SourceInfo) -> SourcePlan:
    """Returns what `build_source` would give."""
    use = _use(request, outline.counts, outline.unlabelled_from)
    size = request.image_size
    shape = (size, size, 3) if size else outline.shape
    needed = sum(use.splits.values()) * prod(shape) if shape else None
    held = _hold(request, needed) is not None or (
        outline.always_in_memory and shape == outline.shape
    )
    counts = {
        "pretrain": sum(map(len, use.pretrain.values())),
        "train": outline.counts.get("train", 0),
        "test": outline.counts.get("test", 0),
    }
    notes = (*outline.notes, *_pretrain_notes(request, use), *_memory_notes(request, held, needed))
    return SourcePlan(counts, outline.classes, shape, notes, held, needed if held and needed else 0)


def build_source(request: Request, parts: RawSource) -> Source:
    """Chooses, resizes, reads. Raises SourceError: a choice that the source hasn't, unreadable
    files beyond the limit, memory."""
    use = _use(
        request,
        {split: len(images) for split, images in parts.images.items()},
        parts.unlabelled_from,
    )
    wanted = {split: parts.images[split] for split in use.splits}
    if "unlabelled" in wanted:  # nothing but pre-training reads these
        wanted["unlabelled"] = subset(wanted["unlabelled"], use.pretrain["unlabelled"])
    if request.image_size:
        wanted = {split: resized(images, request.image_size) for split, images in wanted.items()}

    shapes = {split: images.shape or parts.likely_shape for split, images in wanted.items()}
    needed = (
        None
        if None in shapes.values()
        else sum(len(images) * prod(shapes[split]) for split, images in wanted.items())
    )
    readings = _read(request, parts, use, wanted, hold=_hold(request, needed))
    skipped, losses_allowed = _skipped(request, parts, use, readings)
    held = all(isinstance(reading.images, ArrayImages) for reading in readings.values())
    if not all(reading.images.shape for reading in readings.values()):
        needed = None

    chosen = []
    for split, indices in use.pretrain.items():
        reading = readings[split]
        # Indices point into the split as it was; those of unreadable files are gone and the later
        # ones have moved up.
        kept = (
            np.arange(len(reading.good))
            if split == "unlabelled"
            else np.flatnonzero(np.isin(reading.good, indices))
        )
        chosen.append(
            without_labels(
                reading.images if len(kept) == len(reading.images) else subset(reading.images, kept)
            )
        )
    pretrain = chosen[0] if len(chosen) == 1 else concatenated(*chosen)
    if len(pretrain) < 2:
        raise SourceError(
            f"{request.source}: {len(pretrain)} readable image(s) to pre-train on; at least 2 are "
            "needed"
        )
    labelled = {split: readings[split].images for split in ("train", "test") if split in readings}
    for split, images in labelled.items():
        if not len(images):
            raise SourceError(f"{request.source}: not one image of {split} can be read")
        _check_labels(request.source, split, images.labels, len(parts.class_names))
    return Source(
        name=request.source,
        pretrain=pretrain,
        train=labelled.get("train"),
        test=labelled.get("test"),
        class_names=parts.class_names,
        skipped=skipped,
        notes=(
            *parts.notes,
            *_pretrain_notes(request, use),
            *_memory_notes(request, held, needed),
            *parts.after_reading(losses_allowed),
        ),
        fingerprint=parts.fingerprint,
        trouble=parts.trouble,
        roll=_roll(request, parts, readings, skipped),
        keep=parts.keep,
    )


def _roll(
    request: Request,
    parts: RawSource,
    readings: Mapping[str, Reading],
    skipped: tuple[tuple[str, str], ...],
) -> PhotoManifest | None:
    """Of a source whose files may be unreadable; the one that it was opened with stays as it is."""
    if parts.roll is None or request.roll is not None:
        return parts.roll
    return replace(
        parts.roll,
        skipped=skipped,
        shapes={split: reading.images.shape for split, reading in readings.items()},
    )


def build_sample(request: Request, parts: RawSource, *, hold: bool) -> Images:
    """The images that `request.pretrain_images` chooses, those of one split if it has as many;
    unreadable ones left out."""
    use = _use(
        request,
        {split: len(images) for split, images in parts.images.items()},
        parts.unlabelled_from,
    )
    split, indices = max(use.pretrain.items(), key=lambda item: len(item[1]))
    images = subset(parts.images[split], indices)
    if request.image_size:
        images = resized(images, request.image_size)
    return without_labels(read_through(images, hold=hold).images)


def _check_labels(source: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Raises SourceError where a probe would learn nothing, or count wrong, which shows only after
    the first epoch."""
    present = np.unique(labels)
    if present[0] < 0 or present[-1] >= classes:
        raise SourceError(
            f"{source}: labels of {split}: expected 0 to {classes - 1}; received {present[0]} to "
            f"{present[-1]}"
        )
    if split == "train" and len(present) < 2:
        raise SourceError(
            f"{source}: the readable images of train are all of one class; a probe needs two or "
            "more"
        )


def _use(request: Request, counts: Mapping[str, int], unlabelled_from: tuple[str, ...]) -> _Use:
    """Chooses the splits to pre-train on and draws `pretrain_images` of them."""
    choices: dict[str, set[str]] = {}
    if set(unlabelled_from) <= set(counts):
        choices["unlabelled"] = set(unlabelled_from)
    if "train" in counts:
        choices["train"] = {"train"}
    if len(choices) == 2:
        choices["train+unlabelled"] = choices["train"] | choices["unlabelled"]
    if not choices:
        raise SourceError(
            f"{request.source} has nothing to pre-train on here; it has {', '.join(counts)}"
        )
    asked = request.pretrain or next(iter(choices))
    if asked not in choices:
        allowed = " or ".join(f'"{name}"' for name in choices)
        raise SourceError(
            f"data.pretrain: expected {allowed}, which is what {request.source} has here; received "
            f'"{asked}"'
        )
    splits = [split for split in SPLITS if split in choices[asked]]
    total = sum(counts[split] for split in splits)
    if total < 2:
        raise SourceError(
            f"{request.source}: {total} image(s) to pre-train on; at least 2 are needed"
        )
    drawn = np.arange(total)
    if request.pretrain_images is not None and request.pretrain_images < total:
        # The first of one permutation, so that a larger number contains every smaller one.
        drawn = np.sort(
            stream(request.seed, "pretrain_images").permutation(total)[: request.pretrain_images]
        )
    if len(drawn) < 2:
        raise SourceError(
            f"data.pretrain_images: expected 2 or more, received {request.pretrain_images}"
        )
    pretrain, start = {}, 0
    for split in splits:
        within = drawn[(drawn >= start) & (drawn < start + counts[split])] - start
        if len(within):
            pretrain[split] = within
        start += counts[split]
    used = {split: counts[split] for split in ("train", "test") if split in counts}
    if "unlabelled" in pretrain:
        used["unlabelled"] = len(pretrain["unlabelled"])
    return _Use(pretrain, used)


def _pretrain_notes(request: Request, use: _Use) -> tuple[str, ...]:
    count = sum(map(len, use.pretrain.values()))
    if request.pretrain_images is not None and request.pretrain_images > count:
        return (f"data.pretrain_images asks for {request.pretrain_images:,}; there are {count:,}",)
    return ()


def _memory_notes(request: Request, held: bool, needed: int | None) -> tuple[str, ...]:
    if held or request.cache != "auto":
        return ()
    if needed is None:
        return (
            "images differ in size, so they are read anew each epoch; to hold them in memory takes "
            "data.image_size",
        )
    return (
        f"images are read anew each epoch: in memory they would take {_gigabytes(needed)}, more "
        "than half of what is free",
    )


def _hold(request: Request, needed: int | None) -> str | None:
    """Whether to hold images of `needed` bytes (None: unknown): "must", "may" (unless shapes differ
    after all), or None."""
    if request.cache == "none":
        return None
    free = psutil.virtual_memory().available
    if request.cache == "memory":
        if needed is not None and needed > free:
            raise SourceError(
                f'data.cache is "memory": the images take {_gigabytes(needed)}, {_gigabytes(free)} '
                "are free; "
                'a smaller data.image_size or data.cache "none" would do'
            )
        return "must"
    return "may" if needed is not None and needed <= free * _SHARE_OF_MEMORY else None


def _read(
    request: Request, parts: RawSource, use: _Use, wanted: Mapping[str, Images], *, hold: str | None
) -> dict[str, Reading]:
    """One pass over what has to be held or checked. What was checked when a run began needn't be
    when it goes on."""
    total, done = sum(map(len, wanted.values())), 0
    readings: dict[str, Reading] = {}
    what = f"{'loading' if hold else 'checking'} {request.source}"
    for split, images in wanted.items():
        whole = np.arange(len(images), dtype=np.int64)
        if isinstance(images, ArrayImages) or (hold is None and parts.file_name is None):
            readings[split] = Reading(images, isinstance(images, ArrayImages), whole, ())
        elif hold is None and request.roll is not None and split in request.roll.shapes:
            readings[split] = _read_before(request.roll, parts, use, split, images)
        else:
            start = done
            reading = read_through(
                images,
                hold=hold is not None,
                progress=lambda count, start=start: request.on_progress(what, start + count, total),
            )
            if hold is not None and len(reading.good) and not reading.held:
                if hold == "must":
                    raise SourceError(
                        f'data.cache is "memory", but the images of {request.source} differ in '
                        "size: "
                        'data.image_size gives them one (or data.cache "none" reads them each time)'
                    )
                hold = None
            readings[split] = reading
        done += len(images)
    if (
        hold is None
    ):  # given up on the way: what was held already is let go, so that "auto" means all or nothing
        for split, reading in readings.items():
            if reading.held and not isinstance(wanted[split], ArrayImages):
                again = subset(wanted[split], reading.good, shape=reading.images.shape)
                readings[split] = replace(reading, images=again, held=False)
    return readings


def _read_before(
    roll: PhotoManifest, parts: RawSource, use: _Use, split: str, images: Images
) -> Reading:
    """What reading `images` of a split gave when the run began."""
    reasons, originals = (
        dict(roll.skipped),
        use.pretrain[split] if split == "unlabelled" else range(len(images)),
    )
    names = enumerate(parts.file_name(split, int(original)) for original in originals)
    bad = tuple((index, reasons[name]) for index, name in names if name in reasons)
    good = np.setdiff1d(
        np.arange(len(images), dtype=np.int64), np.array([index for index, _ in bad], np.int64)
    )
    return Reading(subset(images, good, shape=roll.shapes[split]), False, good, bad)


def _skipped(
    request: Request, parts: RawSource, use: _Use, readings: Mapping[str, Reading]
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Names the unreadable files, and says how many more there may be. Raises SourceError when they
    are too many."""
    if parts.file_name is None:
        return (), 0
    reasons = dict(parts.skipped)
    for split, reading in readings.items():
        for index, reason in reading.bad:
            original = int(use.pretrain[split][index]) if split == "unlabelled" else index
            reasons[parts.file_name(split, original)] = reason
    total = len(parts.skipped) + sum(
        len(reading.good) + len(reading.bad) for reading in readings.values()
    )
    if len(reasons) > request.max_unreadable_fraction * total:
        raise SourceError(
            f"{request.root}: {len(reasons):,} of {total:,} files can't be read, more than "
            "data.max_unreadable_fraction = "
            f"{request.max_unreadable_fraction:g} allows. For example {_examples(reasons)}"
        )
    return tuple(sorted(reasons.items())), int(request.max_unreadable_fraction * total) - len(
        reasons
    )


def _examples(reasons: Mapping[str, str]) -> str:
    """The first file of each reason, the commonest reasons first: what would help the most has to
    be among them."""
    files: dict[str, list[str]] = defaultdict(list)
    for name, reason in sorted(reasons.items()):
        files[reason].append(name)
    commonest = sorted(files.items(), key=lambda item: -len(item[1]))[:5]
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1:,} more' if names[1:] else ''}: {reason}"
        for reason, names in commonest
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
