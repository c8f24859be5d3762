"""Embeddings of all images, in their order and in bounded batches."""

import keras
import numpy as np
import pytest

from byol_tf.evaluate.features import embed
from pipelines.sources import Images


class NumberedImages(Images):
    """Image i has i in base 256 in its first two channels; `mixed` ones have several sizes."""

    def __init__(self, count: int, mixed: bool = False, size: tuple[int, int] = (2, 3)):
        self.count, self.mixed, self.labels = count, mixed, None
        self.shape = None if mixed else (*size, 3)
        self.largest_batch = 0

    def batch(self, indices):
        self.largest_batch = max(self.largest_batch, len(indices))
        return super().batch(indices)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        shape = (2 + index % 3, 3 + index % 2, 3) if self.mixed else self.shape
        return np.broadcast_to(np.array([index // 256, index % 256, 7], np.uint8), shape)


@pytest.fixture(scope="module")
def mean_colour() -> keras.Model:
    images = keras.Input((None, None, 3), dtype="uint8")
    floats = keras.layers.Rescaling(1.0)(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(floats))


@pytest.mark.parametrize("count", [1, 250, 503])
def test_images_of_one_size_keep_their_order(mean_colour, count):
    features = embed(mean_colour, NumberedImages(count))
    assert features.dtype == np.float32
    assert features.shape == (count, 3)
    np.testing.assert_allclose(features[:, 0] * 256 + features[:, 1], np.arange(count), atol=1e-3)


def test_images_of_several_sizes_keep_their_order(mean_colour):
    features = embed(mean_colour, NumberedImages(13, mixed=True))
    assert features.shape == (13, 3)
    np.testing.assert_allclose(features[:, 0] * 256 + features[:, 1], np.arange(13), atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "batch_size"), [(96, 96, 250), (1080, 1920, 10), (6000, 8000, 1)]
)
def test_batches_of_large_images_are_small(mean_colour, height, width, batch_size):
    images = NumberedImages(batch_size + 1, size=(height, width))
    assert embed(mean_colour, images).shape == (batch_size + 1, 3)
    assert images.largest_batch == batch_size
