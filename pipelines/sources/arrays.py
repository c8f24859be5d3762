"""Images that are given in Python, as arrays or as `Images`."""

import hashlib
from collections.abc import Mapping

import numpy as np

from pipelines.sources.base import SPLITS, RawSource, Request, SourceError, SourceInfo
from pipelines.sources.images import ArrayImages, Images
from pipelines.sources.pixels import PixelFormat

_HASHED_IMAGES = 64
"""Images of an `Images` object that its fingerprint reads: reading all may take hours."""


def describe(request: Request) -> SourceInfo:
    """Returns the counts of the images."""
    splits = _splits(request)
    shapes = {images.shape for images in splits.values()}
    return SourceInfo(
        counts={split: len(images) for split, images in splits.items()},
        classes=len(_class_names(splits)),
        image_shape=shapes.pop() if len(shapes) == 1 else None,
        in_memory=all(isinstance(images, ArrayImages) for images in splits.values()),
    )


def load(request: Request) -> RawSource:
    """Returns the images; arrays aren't copied."""
    splits = _splits(request)
    return RawSource(splits, _class_names(splits), _fingerprint(splits))


def _splits(request: Request) -> dict[str, Images]:
    """Returns split -> images."""
    if request.images is None:
        raise SourceError(
            'data.source: "arrays" are images that Python code gave to byol_tf, '
            "Experiment(config, images=...) or open_source(images=...); here are none. "
            "data.source=folder names photos on disk"
        )
    given = request.images
    if not isinstance(given, Mapping):
        given = {"train" if isinstance(given, tuple) else "unlabelled": given}
    if unknown := set(given) - set(SPLITS):
        raise SourceError(
            f"images: expected the splits {', '.join(SPLITS)}; received {sorted(unknown)[0]!r:.40}"
        )
    splits: dict[str, Images] = {}
    for split, value in given.items():
        try:
            arrays = value if isinstance(value, tuple) else (value,)
            splits[split] = value if isinstance(value, Images) else ArrayImages(*arrays)
            _check_format(splits[split], request.pixels)
        except (AttributeError, TypeError, ValueError) as error:
            raise SourceError(f"images: {split}: {error}") from error
    return splits


def _check_format(images: Images, pixels: PixelFormat) -> None:
    if (images.channels, images.dtype) != (pixels.channels, pixels.dtype):
        raise ValueError(
            f"expected {pixels.dtype} [n, height, width, {pixels.channels}], as data.channels is "
            f"{pixels.channels} and data.depth {pixels.depth}; received {images.dtype} images of "
            f"{images.channels} channels"
        )


def _class_names(splits: Mapping[str, Images]) -> tuple[str, ...]:
    labels = [images.labels for images in splits.values() if images.labels is not None]
    return tuple(map(str, range(1 + max((int(each.max()) for each in labels), default=-1))))


def _fingerprint(splits: Mapping[str, Images]) -> str:
    digest = hashlib.sha256()
    for split, images in sorted(splits.items()):
        digest.update(f"{split} {len(images)}".encode())
        if isinstance(images, ArrayImages):
            digest.update(images.batch(np.arange(len(images))).data)
        else:
            step = max(1, len(images) // _HASHED_IMAGES)
            for index in range(0, len(images), step):
                digest.update(np.ascontiguousarray(images[index]).data)
        if images.labels is not None:
            digest.update(np.asarray(images.labels, np.int64).data)
    return digest.hexdigest()
