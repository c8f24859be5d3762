"""Builds a `Source` from what a data source has: selects, resizes, checks and caches images."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import numpy as np

from pipelines.memory import free_memory
from pipelines.sources.base import (
    ImageFiles,
    RawSource,
    Request,
    Source,
    SourceError,
    SourceInfo,
)
from pipelines.sources.images import (
    ArrayImages,
    Images,
    concatenated,
    resized,
    subset,
    without_labels,
)
from pipelines.sources.loading import Reading, cached_lazily, is_batchable, read_through
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.selection import select_pretrain, selection_notes, used_counts
from pipelines.sources.unreadable import check_unreadable

_MEMORY_FRACTION = 0.5  # of the free memory, that "auto" takes at most
_Pretrain = Mapping[str, np.ndarray]


def build_plan(request: Request, info: SourceInfo) -> SourceInfo:
    """Returns what `build_source` would give, from what the source says that it has."""
    pretrain = select_pretrain(request, info.counts, info.unlabelled_from)
    size = request.image_size
    shape = (size, size, request.channels) if size else info.image_shape
    used = used_counts(info.counts, pretrain)
    needed = sum(used.values()) * prod(shape) * request.depth // 8 if shape else None
    in_memory = _cache_mode(request, needed) is not None or (
        info.in_memory and shape == info.image_shape
    )
    counts = {
        "pretrain": sum(map(len, pretrain.values())),
        "train": info.counts.get("train", 0),
        "test": info.counts.get("test", 0),
    }
    notes = (
        *info.notes,
        *selection_notes(request, pretrain),
        *_memory_notes(request, in_memory, needed),
    )
    return replace(
        info,
        counts=counts,
        image_shape=shape,
        notes=notes,
        in_memory=in_memory,
        bytes_in_memory=needed if in_memory and needed else 0,
    )


def build_source(request: Request, raw: RawSource) -> Source:
    """Selects, resizes and reads the images.

    Raises:
        SourceError: the source hasn't the split to pre-train on, too many files are unreadable, or
            the images don't fit into memory.
    """
    pretrain = _select(request, raw)
    used = _used_images(request, raw, pretrain)
    needed = _bytes_needed(raw, used)
    readings = _read(request, raw, pretrain, used, cache=_cache_mode(request, needed))
    skipped, losses_allowed = _check_unreadable(request, raw.files, pretrain, readings)
    in_memory = all(reading.in_memory for reading in readings.values())
    if not all(reading.images.shape for reading in readings.values()):
        needed = None

    pretrain_images = _pretrain_images(pretrain, readings)
    if len(pretrain_images) < 2:
        raise SourceError(
            f"{request.source}: {len(pretrain_images)} readable image(s) to pre-train on; at least "
            "2 are needed"
        )
    labelled = {split: readings[split].images for split in ("train", "test") if split in readings}
    for split, images in labelled.items():
        if not len(images):
            raise SourceError(f"{request.source}: not one image of {split} can be read")
        if images.labels is not None:
            _check_labels(request.source, split, images.labels, len(raw.class_names))
    findings = () if raw.files is None else raw.files.finish_reading(losses_allowed)
    if raw.files is not None and request.check == "pixels":
        findings += raw.files.find_copies(set(readings))
    return Source(
        name=request.source,
        pretrain=pretrain_images,
        train=labelled.get("train"),
        test=labelled.get("test"),
        class_names=raw.class_names,
        skipped=skipped,
        notes=(
            *raw.notes,
            *selection_notes(request, pretrain),
            *_memory_notes(request, in_memory, needed),
            *findings,
        ),
        findings=findings,
        splits=frozenset(readings),
        fingerprint=raw.fingerprint,
        manifest=_manifest(request, raw.files, readings, skipped),
        files=raw.files,
    )


def build_sample(request: Request, raw: RawSource, *, in_memory: bool) -> Images:
    """Returns the readable images that `request.pretrain_images` selects.

    They are of one split, the one with most of them.
    """
    split, indices = max(_select(request, raw).items(), key=lambda item: len(item[1]))
    images = subset(raw.images[split], indices)
    if request.image_size:
        images = resized(images, request.image_size)

    def report(count: int) -> None:
        request.on_progress("reading a sample", count, len(images))

    return without_labels(read_through(images, in_memory=in_memory, progress=report).images)


def _select(request: Request, raw: RawSource) -> dict[str, np.ndarray]:
    counts = {split: len(images) for split, images in raw.images.items()}
    return select_pretrain(request, counts, raw.unlabelled_from)


def _used_images(request: Request, raw: RawSource, pretrain: _Pretrain) -> dict[str, Images]:
    """Returns the images in use by split, resized."""
    counts = {split: len(images) for split, images in raw.images.items()}
    used = {split: raw.images[split] for split in used_counts(counts, pretrain)}
    if "unlabelled" in used:
        used["unlabelled"] = subset(used["unlabelled"], pretrain["unlabelled"])
    if request.image_size:
        used = {split: resized(images, request.image_size) for split, images in used.items()}
    return used


def _pretrain_images(pretrain: _Pretrain, readings: Mapping[str, Reading]) -> Images:
    """Returns the readable ones of the images to pre-train on, without labels."""
    selected = []
    for split, indices in pretrain.items():
        reading = readings[split]
        # Indices count all images of the split; among the readable ones, later ones have moved up.
        rows = (
            np.arange(len(reading.readable))
            if split == "unlabelled"  # of these, none but the selected ones were read
            else np.flatnonzero(np.isin(reading.readable, indices))
        )
        every_one = len(rows) == len(reading.images)
        selected.append(
            without_labels(reading.images if every_one else subset(reading.images, rows))
        )
    return selected[0] if len(selected) == 1 else concatenated(*selected)


def _check_labels(source: str, split: str, labels: np.ndarray, classes: int) -> None:
    """Checks what a probe would otherwise show only after the first epoch. Raises SourceError."""
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


def _bytes_needed(raw: RawSource, used: Mapping[str, Images]) -> int | None:
    """Returns the size of the images in memory, or None where they differ in shape."""
    needed = 0
    for images in used.values():
        shape = images.shape or raw.likely_shape
        if shape is None:
            return None
        needed += len(images) * prod(shape) * images.dtype.itemsize
    return needed


def _cache_mode(request: Request, needed: int | None) -> str | None:
    """Decides whether images of `needed` bytes (None: unknown) are kept in memory.

    Returns:
        "must"; "may", unless they turn out to differ in shape; or None.
    """
    if request.cache == "none":
        return None
    free = free_memory()
    if request.cache == "memory":
        if needed is not None and needed > free:
            raise SourceError(
                f'data.cache is "memory": the images take {_gigabytes(needed)}, {_gigabytes(free)} '
                'are free; a smaller data.image_size or data.cache "none" would do'
            )
        return "must"
    return "may" if needed is not None and needed <= free * _MEMORY_FRACTION else None


def _memory_notes(request: Request, in_memory: bool, needed: int | None) -> tuple[str, ...]:
    if in_memory or request.cache != "auto":
        return ()
    if needed is None:
        return (
            "images differ in size, so they are read again each epoch; to keep them in memory, set "
            "data.image_size",
        )
    return (
        f"images are read again each epoch: in memory they would take {_gigabytes(needed)}, more "
        "than half of what is free",
    )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _read(
    request: Request,
    raw: RawSource,
    pretrain: _Pretrain,
    used: Mapping[str, Images],
    *,
    cache: str | None,
) -> dict[str, Reading]:
    """Reads once what has to be cached or checked; of files that is their headers, if that will do.

    Files that were checked when the run began aren't checked again when it is resumed.
    """
    manifest, readings = request.manifest, {}
    total, done = sum(map(len, used.values())), 0
    lazily = raw.files is not None and request.check == "headers"
    work = f"{'loading' if cache and not lazily else 'checking'} {request.source}"
    for split, images in used.items():
        if isinstance(images, ArrayImages) or (cache is None and raw.files is None):
            readings[split] = Reading(images, np.arange(len(images), dtype=np.int64), ())
            done += len(images)
            continue
        if (cache is None or lazily) and raw.files and manifest and split in manifest.shapes:
            reading = _restored_reading(manifest, raw.files, pretrain, split, images)
        elif lazily and raw.files and not raw.files.header_check:
            reading = Reading(images, np.arange(len(images), dtype=np.int64), (), images.shape)
        else:

            def report(count: int, start: int = done) -> None:
                request.on_progress(work, start + count, total)

            reading = read_through(
                images, in_memory=cache is not None and not lazily, progress=report
            )
        if cache is not None and reading.common_shape is None and len(reading.readable):
            if cache == "must":
                raise SourceError(
                    f'data.cache is "memory", but the images of {request.source} differ in '
                    'size: data.image_size gives them one (or data.cache "none" reads them '
                    "each time)"
                )
            cache = None
        some = cache is not None and lazily and len(reading.readable)
        readings[split] = cached_lazily(reading) if some else reading
        done += len(images)
    if cache is None:  # "auto" caches all or nothing: splits that were cached already are dropped
        for split, reading in readings.items():
            if reading.in_memory and not isinstance(used[split], ArrayImages):
                images = subset(used[split], reading.readable, shape=reading.images.shape)
                readings[split] = replace(reading, images=images)
    return readings


def _restored_reading(
    manifest: PhotoManifest, files: ImageFiles, pretrain: _Pretrain, split: str, images: Images
) -> Reading:
    """Returns what reading a split gave when the run began."""
    reasons = dict(manifest.skipped)
    originals = pretrain[split] if split == "unlabelled" else range(len(images))
    names = enumerate(files.name(split, int(original)) for original in originals)
    unreadable = tuple((index, reasons[name]) for index, name in names if name in reasons)
    readable = np.setdiff1d(
        np.arange(len(images), dtype=np.int64), np.array([i for i, _ in unreadable], np.int64)
    )
    shape = manifest.shapes[split]
    batch_shape = shape if shape is not None and is_batchable(shape) else None
    return Reading(subset(images, readable, shape=batch_shape), readable, unreadable, shape)


def _manifest(
    request: Request,
    files: ImageFiles | None,
    readings: Mapping[str, Reading],
    skipped: tuple[tuple[str, str], ...],
) -> PhotoManifest | None:
    """Returns the manifest of a new run; a resumed run keeps its own."""
    if files is None:
        return None
    if request.manifest is not None:
        return request.manifest
    shapes = {split: reading.common_shape for split, reading in readings.items()}
    return replace(files.manifest, skipped=skipped, shapes=shapes)


def _check_unreadable(
    request: Request,
    files: ImageFiles | None,
    pretrain: _Pretrain,
    readings: Mapping[str, Reading],
) -> tuple[tuple[tuple[str, str], ...], int]:
    """Returns (path, reason) of the unreadable files, and how many more there may be.

    Raises:
        TooManyUnreadable: there are too many.
    """
    if files is None:
        return (), 0
    reasons = dict(files.unreadable)
    for split, reading in readings.items():
        for index, reason in reading.unreadable:
            original = int(pretrain[split][index]) if split == "unlabelled" else index
            reasons[files.name(split, original)] = reason
    total = len(files.unreadable) + sum(
        len(reading.readable) + len(reading.unreadable) for reading in readings.values()
    )
    allowed = request.max_unreadable_fraction
    check_unreadable(request.root, reasons, total, allowed)
    return tuple(sorted(reasons.items())), int(allowed * total) - len(reasons)
