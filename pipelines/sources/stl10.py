"""STL-10: 100,000 unlabelled photos of 96 x 96 pixels, and 10 classes with 500 photos each to train and 800 to test on.

Coates, Lee, Ng: An analysis of single-layer networks in unsupervised feature learning, AISTATS 2011. TFDS's `stl10`.
"""

from pipelines.sources import tfds_sources
from pipelines.sources.source import Outline, Parts, Request
from pipelines.sources.tfds_prepare import Published

_STL10 = Published(
    name="stl10",
    splits={"unlabelled": "unlabelled", "train": "train", "test": "test"},
    counts={"unlabelled": 100_000, "train": 5_000, "test": 8_000},
    classes=10,
    shape=(96, 96, 3),
    archives=("stl10_binary.tar.gz",),
    by_hand=None,
    disk=2.4,  # 3.1 GB unpacked and 2 to 2.5 GB of PNG, from 2.64 GB
)


def outline(request: Request) -> Outline:
    """See `tfds_sources.outline`."""
    return tfds_sources.outline(request, _STL10)


def parts(request: Request) -> Parts:
    """See `tfds_sources.parts`. TFDS's label of unlabelled photos, -1, never leaves."""
    return tfds_sources.parts(request, _STL10)
