"""Textures: a function of (seed, split, index), separable by their pattern only."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from pipelines.sources import ArrayImages, open_source, plan_source
from pipelines.sources.textures import PATTERNS, draw


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """600 images to learn from and 600 to be judged on, float64 `[600, 48, 48]`, with their
    labels."""
    numbers = np.arange(600)
    return (
        draw(0, "train", numbers).astype(float),
        numbers % 10,
        draw(0, "test", numbers).astype(float),
        numbers % 10,
    )


class TestDraw:
    def test_same_seed_gives_same_bytes(self):
        np.testing.assert_array_equal(
            draw(3, "train", np.arange(40)), draw(3, "train", np.arange(40))
        )

    def test_image_is_independent_of_batch(self):
        together = draw(3, "train", np.arange(300))
        for indices in ([7], [299, 0, 150], [20, 20]):
            np.testing.assert_array_equal(draw(3, "train", np.array(indices)), together[indices])

    def test_seeds_and_splits_differ(self):
        images = [
            draw(seed, split, np.arange(50))
            for seed in (0, 1)
            for split in ("unlabelled", "train", "test")
        ]
        every = {image.tobytes() for one in images for image in one}
        assert len(every) == 6 * 50

    def test_images_of_one_pattern_differ(self):
        """Blobs (pattern 9) have no period: pixels of two images are nearly uncorrelated."""
        images = draw(0, "train", np.arange(9, 2_000, 10)).astype(float).reshape(200, -1)
        images -= images.mean(axis=1, keepdims=True)
        images /= np.linalg.norm(images, axis=1, keepdims=True)
        between = (images @ images.T)[~np.eye(200, dtype=bool)]
        assert abs(between.mean()) < 0.01
        assert np.abs(between).max() < 0.6

    def test_values_use_the_range_without_clipping(self):
        images = draw(0, "train", np.arange(500)).astype(float)
        assert images.shape == (500, 48, 48)
        assert 110 < images.mean() < 146
        assert ((images == 0) | (images == 255)).mean() < 0.02
        assert images.std(axis=(1, 2)).min() > 20


class TestDifficulty:
    def test_brightness_and_contrast_do_not_separate_patterns(self, labelled):
        train, train_labels, test, test_labels = labelled
        simple = [
            np.stack([images.mean(axis=(1, 2)), images.std(axis=(1, 2))], 1)
            for images in (train, test)
        ]
        score = (
            RandomForestClassifier(50, random_state=0)
            .fit(simple[0], train_labels)
            .score(simple[1], test_labels)
        )
        assert score < 0.16  # chance is .1

    def test_pixels_do_not_separate_patterns(self, labelled):
        train, train_labels, test, test_labels = labelled
        flat = [images.reshape(600, -1) / 64 - 2 for images in (train, test)]
        assert (
            LogisticRegression(C=1e-3).fit(flat[0], train_labels).score(flat[1], test_labels) < 0.3
        )

    def test_spectrum_separates_patterns(self, labelled):
        """Without learning a network: the patterns can be told apart."""
        train, train_labels, test, test_labels = labelled
        forest = RandomForestClassifier(100, random_state=0).fit(spectrum(train), train_labels)
        assert forest.score(spectrum(test), test_labels) > 0.9


def spectrum(images: np.ndarray) -> np.ndarray:
    """Returns power by distance from the Fourier plane's centre, and skewness of pixels."""
    images = (images - images.mean(axis=(1, 2), keepdims=True)) / images.std(
        axis=(1, 2), keepdims=True
    )
    power = np.log(np.abs(np.fft.fft2(images)) ** 2 + 100)
    frequency = np.fft.fftfreq(images.shape[1]) * images.shape[1]
    distance = np.hypot(frequency[:, None], frequency[None])
    features = [(images**3).mean(axis=(1, 2))]
    for ring in range(1, 24):
        inside = np.sort(power[:, np.abs(distance - ring) < 0.5], axis=1)
        features += [inside.mean(axis=1), np.median(inside, axis=1), inside[:, -1]]
    return np.stack(features, 1)


class TestSource:
    def test_counts(self):
        plan = plan_source("textures")
        assert plan.counts == {"pretrain": 8_000, "train": 1_000, "test": 2_000}
        assert (plan.classes, plan.image_shape, plan.in_memory, plan.bytes_in_memory) == (
            10,
            (48, 48, 3),
            True,
            11_000 * 48 * 48 * 3,
        )

    def test_smaller_set_is_the_beginning_of_a_larger_one(self):
        few, more = (
            open_source("textures", pretrain_images=number, seed=5) for number in (100, 130)
        )
        assert (len(few.pretrain), len(few.train), len(few.test)) == (100, 1_000, 2_000)
        assert plan_source("textures", pretrain_images=100).counts["pretrain"] == 100
        np.testing.assert_array_equal(
            few.pretrain.batch(np.arange(100)), more.pretrain.batch(np.arange(100))
        )
        np.testing.assert_array_equal(few.test.batch(np.arange(50)), more.test.batch(np.arange(50)))
        assert few.pretrain.labels is None
        assert few.class_names == tuple(PATTERNS)
        for images in (few.train, few.test):
            np.testing.assert_array_equal(np.bincount(images.labels), len(images) // 10)
        batch = few.train.batch(np.arange(30))
        assert isinstance(few.train, ArrayImages)
        np.testing.assert_array_equal(batch[..., 0], batch[..., 1])
        np.testing.assert_array_equal(batch[..., 0], batch[..., 2])
        np.testing.assert_array_equal(batch[..., 0], draw(5, "train", np.arange(30)))
        assert (
            len(
                {
                    few.fingerprint,
                    more.fingerprint,
                    open_source("textures", pretrain_images=100, seed=6).fingerprint,
                }
            )
            == 3
        )

    def test_image_size_resizes_textures(self):
        source = open_source("textures", pretrain_images=20, image_size=32)
        assert (
            source.pretrain.shape
            == source.test.shape
            == plan_source("textures", image_size=32).image_shape
            == (32, 32, 3)
        )
        assert isinstance(source.pretrain, ArrayImages)
