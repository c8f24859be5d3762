"""CIFAR-10: photos of 32 x 32 pixels, 10 classes with 5,000 each to train and 1,000 to test on.

Krizhevsky: Learning multiple layers of features from tiny images, 2009. TFDS's `cifar10`.
"""

from pipelines.sources import tfds_sources
from pipelines.sources.source import Outline, Parts, Request
from pipelines.sources.tfds_prepare import Published

_CIFAR10 = Published(
    name="cifar10",
    splits={"train": "train", "test": "test"},
    counts={"train": 50_000, "test": 10_000},
    classes=10,
    shape=(32, 32, 3),
    archives=("cifar-10-binary.tar.gz",),
    by_hand=None,
    disk=2.2,  # 184 MB unpacked and about 150 MB of PNG, from 170 MB
)


def outline(request: Request) -> Outline:
    """See `tfds_sources.outline`."""
    return tfds_sources.outline(request, _CIFAR10)


def parts(request: Request) -> Parts:
    """See `tfds_sources.parts`."""
    return tfds_sources.parts(request, _CIFAR10)
