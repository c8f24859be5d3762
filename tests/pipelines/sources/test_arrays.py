"""Images that are given in Python."""

import re

import numpy as np
import pytest

from pipelines.sources import ArrayImages, SourceError, open_source, plan_source

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 10, 12, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("images", "counts", "classes"),
    [
        (IMAGES, {"pretrain": 6, "train": 0, "test": 0}, 0),
        ((IMAGES, LABELS), {"pretrain": 6, "train": 6, "test": 0}, 3),
        (
            {"unlabelled": IMAGES, "test": (IMAGES[:3], LABELS[:3])},
            {"pretrain": 6, "train": 0, "test": 3},
            3,
        ),
        (ArrayImages(IMAGES), {"pretrain": 6, "train": 0, "test": 0}, 0),
    ],
)
def test_arrays_are_planned_and_opened_alike(images, counts, classes):
    plan = plan_source("arrays", images=images)
    source = open_source("arrays", images=images)
    assert (plan.counts, plan.classes, plan.image_shape) == (counts, classes, (10, 12, 3))
    assert {
        "pretrain": len(source.pretrain),
        "train": len(source.train or ()),
        "test": len(source.test or ()),
    } == counts
    assert len(source.class_names) == classes
    np.testing.assert_array_equal(source.pretrain[4], IMAGES[4])


def test_fingerprint_is_that_of_pixels_and_labels():
    changed = IMAGES.copy()
    changed[5, 9, 11, 2] += 1
    fingerprints = {
        open_source("arrays", images=images).fingerprint
        for images in (IMAGES, IMAGES.copy(), changed, (IMAGES, LABELS), (IMAGES, LABELS[::-1]))
    }
    assert len(fingerprints) == 4


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "Experiment(config, images=...)"),
        (IMAGES.astype(np.float32), "of 1 to 16 channels, received float32 [6, 10, 12, 3]"),
        ({"val": IMAGES}, "expected the splits unlabelled, train, test; received 'val'"),
        ({"train": [IMAGES]}, "images: train: "),
    ],
)
def test_other_images_are_refused(images, message):
    with pytest.raises(SourceError, match=re.escape(message)):
        plan_source("arrays", images=images)
