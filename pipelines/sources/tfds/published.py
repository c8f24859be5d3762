"""Facts about the published data sets, known without having them: STL-10, CIFAR-10, ImageNet."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.sources.images import Shape


@dataclass(frozen=True)
class PublishedDataset:
    """A data set that TFDS prepares.

    Attributes:
        name: TFDS's name of it.
        splits: our names of its splits -> TFDS's.
        counts: number of images in each of our splits.
        classes: number of classes.
        shape: of every image, or None where they differ.
        archives: names of the files that are downloaded.
        manual_download: where people get them, if TFDS can't download them; else None.
        disk_factor: disk space that preparing takes, as a multiple of the archives' size and
            without the archives themselves.
    """

    name: str
    splits: Mapping[str, str]
    counts: Mapping[str, int]
    classes: int
    shape: Shape | None
    archives: tuple[str, ...]
    manual_download: str | None
    disk_factor: float


PUBLISHED = {
    # Coates, Lee, Ng: An analysis of single-layer networks in unsupervised feature learning,
    # AISTATS 2011.
    "stl10": PublishedDataset(
        name="stl10",
        splits={"unlabelled": "unlabelled", "train": "train", "test": "test"},
        counts={"unlabelled": 100_000, "train": 5_000, "test": 8_000},
        classes=10,
        shape=(96, 96, 3),
        archives=("stl10_binary.tar.gz",),
        manual_download=None,
        disk_factor=2.4,  # 3.1 GB unpacked and 2 to 2.5 GB of PNG, from 2.64 GB
    ),
    # Krizhevsky: Learning multiple layers of features from tiny images, 2009.
    "cifar10": PublishedDataset(
        name="cifar10",
        splits={"train": "train", "test": "test"},
        counts={"train": 50_000, "test": 10_000},
        classes=10,
        shape=(32, 32, 3),
        archives=("cifar-10-binary.tar.gz",),
        manual_download=None,
        disk_factor=2.2,  # 184 MB unpacked and about 150 MB of PNG, from 170 MB
    ),
    # Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015.
    "imagenet": PublishedDataset(
        name="imagenet2012",
        splits={"train": "train", "test": "validation"},
        counts={"train": 1_281_167, "test": 50_000},
        classes=1_000,
        shape=None,
        archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        manual_download=(
            "Log in at https://image-net.org/download-images to get them (147.9 and 6.7 GB)."
        ),
        disk_factor=1.05,  # the same JPEGs in other files
    ),
}
"""By the name of our source."""
