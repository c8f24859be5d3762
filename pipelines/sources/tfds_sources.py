"""What the three TFDS sources have in common."""

import hashlib

from pipelines.sources.assembly import planned
from pipelines.sources.source import SPLITS, Outline, Parts, Request, SourceError
from pipelines.sources.tfds_prepare import Found, Published, find, prepare
from pipelines.sources.tfds_records import split_images


def outline(request: Request, published: Published) -> Outline:
    """Says what is prepared, or what would be. Writes nothing, uses no network. Raises SourceError: see `find`."""
    found = find(published, request.root, request.archive)
    if found.prepared:
        counts = _counts(published, found)
        note = f"prepared in {found.builder.data_dir} ({found.builder.info.file_format.value})"
    else:
        counts = dict(published.counts)
        disk = f"{found.disk / 1e9:.1f} GB while that is done"
        if found.missing:
            note = found.missing
        elif found.url:
            note = (
                f"not here yet: would download {found.url} ({found.size / 1e9:.2f} GB) and prepare it in {found.builder.data_dir}, {disk}"
            )
        else:
            origin = " and ".join(map(str, found.archives)) or "what TFDS downloaded earlier"
            note = f"not prepared yet: would be in {found.builder.data_dir}, from {origin}, {disk}"
    notes = (f"{published.name} {found.builder.version}: {note}",)
    return Outline(counts, published.classes, published.shape, notes=notes, ready=found.prepared)


def parts(request: Request, published: Published) -> Parts:
    """Prepares the data set where it isn't, and opens it. Raises SourceError: see `find`, `prepare`, `planned`."""
    found = find(published, request.root, request.archive)
    if found.missing:
        raise SourceError(found.missing)
    if not found.prepared:
        planned(request, outline(request, published))  # a choice that can't be met shows before hours of preparation
        request.on_progress(f"preparing {published.name}, once, which takes minutes", 0, sum(published.counts.values()))
        prepare(published, found)
    builder = found.builder
    counts = _counts(published, found)
    identity = f"{published.name} {builder.version} " + " ".join(f"{split} {counts[split]}" for split in SPLITS if split in counts)
    return Parts(
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
        notes=(f"{published.name} {builder.version} in {builder.data_dir} ({builder.info.file_format.value})",),
    )


def _counts(published: Published, found: Found) -> dict[str, int]:
    """Images in each of our splits that was prepared."""
    splits = found.builder.info.splits
    return {ours: splits[theirs].num_examples for ours, theirs in published.splits.items() if theirs in splits}
