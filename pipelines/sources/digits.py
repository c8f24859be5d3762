"""Handwritten digits that come with scikit-learn: real images, small, without a download."""

import hashlib

import numpy as np

from pipelines.sources.base import RawSource, Request, SourceInfo, generator
from pipelines.sources.images import ArrayImages, resize_and_center_crop

_SIDE = 32  # 8 x 8 enlarged, so that a network with strides has something to look at
_TRAIN, _TEST = 1_437, 360  # 80% and 20% of 1,797


def describe(request: Request) -> SourceInfo:
    """Returns the counts of the digits."""
    size = request.image_size or _SIDE
    notes = (f"{_TRAIN + _TEST:,} digits of 8 x 8 pixels (scikit-learn), enlarged to {size}",)
    return SourceInfo(
        {"train": _TRAIN, "test": _TEST}, 10, (size, size, 3), notes=notes, in_memory=True
    )


def load(request: Request) -> RawSource:
    """Loads the digits and divides them into train and test: stratified, sampled by the seed."""
    from sklearn.datasets import load_digits  # takes a second to import
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    size = request.image_size or _SIDE
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 as published
    images = np.stack(
        [resize_and_center_crop(np.repeat(image[..., None], 3, axis=2), size) for image in grey]
    )
    labels = digits.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=_TEST,
        stratify=labels,
        random_state=int(generator(request.seed, "digits").integers(2**31)),
    )
    train, test = np.sort(train), np.sort(test)
    identity = b"digits %d %d %d" % (request.seed, len(train), len(test))
    return RawSource(
        images={
            "train": ArrayImages(images[train], labels[train]),
            "test": ArrayImages(images[test], labels[test]),
        },
        class_names=tuple(str(name) for name in digits.target_names),
        fingerprint=hashlib.sha256(identity).hexdigest(),
        notes=describe(request).notes,
    )
