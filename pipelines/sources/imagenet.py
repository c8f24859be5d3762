"""ImageNet (ILSVRC 2012): photos of all sizes, 1,000 classes. The validation photos are the test set, as everywhere.

Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015. TFDS's `imagenet2012`.
"""

from pipelines.sources import tfds_sources
from pipelines.sources.source import Outline, Parts, Request
from pipelines.sources.tfds_prepare import Published

_IMAGENET = Published(
    name="imagenet2012",
    splits={"train": "train", "test": "validation"},
    counts={"train": 1_281_167, "test": 50_000},
    classes=1_000,
    shape=None,
    archives=("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
    by_hand="Log in at https://image-net.org/download-images to get them (147.9 and 6.7 GB).",
    disk=1.05,  # the same JPEGs in other files
)


def outline(request: Request) -> Outline:
    """See `tfds_sources.outline`."""
    return tfds_sources.outline(request, _IMAGENET)


def parts(request: Request) -> Parts:
    """See `tfds_sources.parts`. The first time, reading the labels takes minutes."""
    return tfds_sources.parts(request, _IMAGENET)
