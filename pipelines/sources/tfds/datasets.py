"""The data sets that TFDS prepares: STL-10, CIFAR-10 and ImageNet."""

import hashlib

from pipelines.sources.base import SPLITS, RawSource, Request, SourceError, SourceInfo
from pipelines.sources.splits import build_plan
from pipelines.sources.tfds.prepare import DatasetLocation, Published, find, prepare
from pipelines.sources.tfds.records import split_images

_DATASETS = {
    # Coates, Lee, Ng: An analysis of single-layer networks in unsupervised feature learning,
    # AISTATS 2011.
    "stl10": Published(
        name="stl10",
        splits={"unlabelled": "unlabelled", "train": "train", "test": "test"},
        counts={"unlabelled": 100_000, "train": 5_000, "test": 8_000},
        classes=10,
        shape=(96, 96, 3),
        archives=("stl10_binary.tar.gz",),
        by_hand=None,
        disk=2.4,  # 3.1 GB unpacked and 2 to 2.5 GB of PNG, from 2.64 GB
    ),
    # Krizhevsky: Learning multiple layers of features from tiny images, 2009.
    "cifar10": Published(
        name="cifar10",
        splits={"train": "train", "test": "test"},
        counts={"train": 50_000, "test": 10_000},
        classes=10,
        shape=(32, 32, 3),
        archives=("cifar-10-binary.tar.gz",),
        by_hand=None,
        disk=2.2,  # 184 MB unpacked and about 150 MB of PNG, from 170 MB
    ),
    # Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015.
    "imagenet": Published(
        name="imagenet2012",
        splits={"train": "train", "test": "validation"},
        counts={"train": 1_281_167, "test": 50_000},
        classes=1_000,
        shape=None,
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        by_hand="Log in at https://image-net.org/download-images to get them (147.9 and 6.7 GB).",
        disk=1.05,  # the same JPEGs in other files
    ),
}


def describe(request: Request) -> SourceInfo:
    """Says what is prepared, or what would be. Writes nothing, uses no network. Raises SourceError:
    see `find`."""
    published = _DATASETS[request.source]
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
                f"not here yet: would download {found.url} ({found.size / 1e9:.2f} GB) and "
                f"prepare it in {found.builder.data_dir}, {disk}"
            )
        else:
            origin = " and ".join(map(str, found.archives)) or "what TFDS downloaded earlier"
            note = f"not prepared yet: would be in {found.builder.data_dir}, from {origin}, {disk}"
    notes = (f"{published.name} {found.builder.version}: {note}",)
    return SourceInfo(counts, published.classes, published.shape, notes=notes, ready=found.prepared)


def load(request: Request) -> RawSource:
    """Prepares the data set where it isn't, and opens it. Raises SourceError: see `find`,
    `prepare`, `build_plan`."""
    published = _DATASETS[request.source]
    found = find(published, request.root, request.archive)
    if found.missing:
        raise SourceError(found.missing)
    if not found.prepared:
        build_plan(
            request, describe(request)
        )  # a choice that can't be met shows before hours of preparation
        request.on_progress(
            f"preparing {published.name}, once, which takes minutes",
            0,
            sum(published.counts.values()),
        )
        prepare(published, found)
    builder = found.builder
    counts = _counts(published, found)
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


def _counts(published: Published, found: DatasetLocation) -> dict[str, int]:
    """Images in each of our splits that was prepared."""
    splits = found.builder.info.splits
    return {
        ours: splits[theirs].num_examples
        for ours, theirs in published.splits.items()
        if theirs in splits
    }
