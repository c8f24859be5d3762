"""The sources that TFDS prepares: STL-10, CIFAR-10 and ImageNet."""

import hashlib
from collections.abc import Mapping

from pipelines.sources.base import SPLITS, RawSource, Request, SourceError, SourceInfo
from pipelines.sources.building import build_plan
from pipelines.sources.tfds.prepare import find_dataset, prepare
from pipelines.sources.tfds.published import PUBLISHED, PublishedDataset
from pipelines.sources.tfds.records import split_images


def describe(request: Request) -> SourceInfo:
    """Describes the prepared data set, or the one that would be prepared.

    Raises:
        SourceError: see `find_dataset`.
    """
    published = PUBLISHED[request.source]
    location = find_dataset(published, request.root, request.archive)
    builder = location.builder
    if location.prepared:
        note = f"prepared in {builder.data_dir} ({builder.info.file_format.value})"
    else:
        disk = f"{location.disk / 1e9:.1f} GB while that is done"
        if location.missing:
            note = location.missing
        elif location.url:
            note = (
                f"not here yet: would download {location.url} ({location.size / 1e9:.2f} GB) and "
                f"prepare it in {builder.data_dir}, {disk}"
            )
        else:
            origin = " and ".join(map(str, location.archives)) or "what TFDS downloaded earlier"
            note = f"not prepared yet: would be in {builder.data_dir}, from {origin}, {disk}"
    return SourceInfo(
        _counts(published, builder.info.splits) if location.prepared else published.counts,
        published.classes,
        published.shape,
        notes=(f"{published.name} {builder.version}: {note}",),
        ready=location.prepared,
    )


def load(request: Request) -> RawSource:
    """Opens the data set, which is downloaded and prepared if it isn't yet.

    Raises:
        SourceError: see `find_dataset`, `prepare` and `build_plan`.
    """
    published = PUBLISHED[request.source]
    location = find_dataset(published, request.root, request.archive)
    if location.missing:
        raise SourceError(location.missing)
    if not location.prepared:
        # A request that can't be met is reported before hours of preparation.
        build_plan(request, describe(request))
        request.on_progress(
            f"preparing {published.name}, once, which takes minutes",
            0,
            sum(published.counts.values()),
        )
        prepare(published, location)
    builder = location.builder
    counts = _counts(published, builder.info.splits)
    identity = f"{published.name} {builder.version} " + " ".join(
        f"{split} {counts[split]}" for split in SPLITS if split in counts
    )
    return RawSource(
        images={
            split: split_images(
                builder,
                published.splits[split],
                labelled=split != "unlabelled",
                shape=published.shape,
                on_progress=request.on_progress,
            )
            for split in counts
        },
        class_names=tuple(builder.info.features["label"].names),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        notes=(
            f"{published.name} {builder.version} in {builder.data_dir} "
            f"({builder.info.file_format.value})",
        ),
    )


def _counts(published: PublishedDataset, splits: Mapping) -> dict[str, int]:
    """Returns the number of images in each of our splits that is prepared."""
    return {
        ours: splits[theirs].num_examples
        for ours, theirs in published.splits.items()
        if theirs in splits
    }
