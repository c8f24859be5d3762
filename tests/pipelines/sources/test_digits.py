"""scikit-learn's digits as a source."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines.sources import ArrayImages, SourceError, open_source, plan_source


def test_counts_and_classes():
    plan, source = plan_source("digits"), open_source("digits")
    assert plan.counts == {
        "pretrain": len(source.pretrain),
        "train": len(source.train),
        "test": len(source.test),
    }
    assert plan.counts == {"pretrain": 1_437, "train": 1_437, "test": 360}
    assert (
        (plan.classes, plan.image_shape)
        == (len(source.class_names), source.train.shape)
        == (10, (32, 32, 3))
    )
    assert source.pretrain.labels is None
    assert isinstance(source.train, ArrayImages)
    assert np.ptp(np.bincount(source.test.labels)) <= 2, "not stratified"


def test_pixels_equal_those_of_scikit_learn():
    digits = load_digits()
    source = open_source("digits", image_size=8)
    published = sorted(
        (np.rint(image / 16 * 255).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(*digits_of(digits), strict=True)
    )
    ours = [
        (images[i][..., 0].tobytes(), int(images.labels[i]))
        for images in (source.train, source.test)
        for i in range(len(images))
    ]
    assert sorted(ours) == published


def digits_of(digits) -> tuple[np.ndarray, np.ndarray]:
    return digits.images, digits.target


def test_seed_decides_the_split():
    first, again, other = (open_source("digits", seed=seed, image_size=8) for seed in (0, 0, 1))
    everything = np.arange(360)
    np.testing.assert_array_equal(first.test.batch(everything), again.test.batch(everything))
    assert not np.array_equal(first.test.batch(everything), other.test.batch(everything))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_pretrain_images_limits_the_sample():
    assert (
        plan_source("digits", pretrain_images=50).counts["pretrain"]
        == len(open_source("digits", pretrain_images=50).pretrain)
        == 50
    )


def test_unlabelled_digits_are_an_error():
    with pytest.raises(
        SourceError,
        match=r'data.pretrain: expected "train", which is what digits has here; received "unlabelled"',
    ):
        plan_source("digits", pretrain="unlabelled")
