"""Embeddings come in the images' order, all of them."""

import keras
import numpy as np
import pytest

from byol_tf.evaluate.features import embed
from pipelines.sources import Images


class Numbered(Images):
    """Image i holds i in base 256 in its first two channels; with `sizes`, each has another
    size."""

    def __init__(self, count: int, sizes: bool = False, size: tuple[int, int] = (2, 3)):
        self.count, self.sizes, self.labels = count, sizes, None
        self.shape = None if sizes else (*size, 3)
        self.most = 0

    def batch(self, indices):
        self.most = max(self.most, len(indices))
        return super().batch(indices)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        shape = (2 + index % 3, 3 + index % 2, 3) if self.sizes else self.shape
        return np.broadcast_to(np.array([index // 256, index % 256, 7], np.uint8), shape)


@pytest.fixture(scope="module")
def mean_colour() -> keras.Model:
    images = keras.Input((None, None, 3), dtype="uint8")
    floats = keras.layers.Rescaling(1.0)(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(floats))


@pytest.mark.parametrize("count", [1, 250, 503])
def test_of_one_size(mean_colour, count):
    features = embed(mean_colour, Numbered(count))
    assert features.dtype == np.float32
    assert features.shape == (count, 3)
    np.testing.assert_allclose(features[:, 0] * 256 + features[:, 1], np.arange(count), atol=1e-3)


def test_of_different_sizes(mean_colour):
    features = embed(mean_colour, Numbered(13, sizes=True))
    assert features.shape == (13, 3)
    np.testing.assert_allclose(features[:, 0] * 256 + features[:, 1], np.arange(13), atol=1e-3)


@pytest.mark.parametrize(
    ("height", "width", "most"), [(96, 96, 250), (1080, 1920, 10), (6000, 8000, 1)]
)
def test_a_batch_of_large_ones_is_small(mean_colour, height, width, most):
    images = Numbered(most + 1, size=(height, width))
    assert embed(mean_colour, images).shape == (most + 1, 3)
    assert images.most == most
