"""Labels stay with their images, crops are crops."""

import numpy as np
import pytest

from byol_tf.evaluate.crops import batch_size_for, crop_layer, labelled_batches
from pipelines.sources import ArrayImages, Images


class OfSeveralSizes(Images):
    """Image i is all of colour i."""

    def __init__(self, count: int):
        self.count, self.labels, self.shape = count, np.arange(count), None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.full((9 + index % 3, 12 - index % 2, 3), index, np.uint8)


def of_one_size(count: int) -> ArrayImages:
    return ArrayImages(
        np.repeat(np.arange(count, dtype=np.uint8), 10 * 10 * 3).reshape(count, 10, 10, 3),
        np.arange(count),
    )


@pytest.mark.parametrize("make", [of_one_size, OfSeveralSizes])
def test_indices_are_those_of_the_images(make):
    images = make(40)
    crops = crop_layer(images, 8)
    seen = []
    for pixels, params, indices in labelled_batches(images, 8, 16, seed=5).take(4):
        views = crops(pixels, params).numpy()
        assert views.shape == (16, 8, 8, 3)
        np.testing.assert_allclose(
            views, np.broadcast_to(indices.numpy()[:, None, None, None], views.shape), atol=1e-3
        )
        seen.append(indices.numpy())
    assert len(set(np.concatenate(seen[:2]))) == 32  # an epoch shows no image twice
    assert not np.array_equal(seen[0], seen[2])


def test_crops_and_flips_and_nothing_else():
    """Of an image with one red column, crops hold red and black only, and both orientations
    occur."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, 2, 0] = 255
    images = ArrayImages(np.repeat(image, 64, axis=0), np.zeros(64, int))
    pixels, params, _ = next(iter(labelled_batches(images, 16, 64, seed=0)))
    views = crop_layer(images, 16)(pixels, params).numpy()
    assert views[..., 1:].max() == 0.0
    assert 0.0 <= views.min() <= views.max() <= 255.0
    places = views[..., 0].mean(axis=1).argmax(axis=1)[views[..., 0].max(axis=(1, 2)) > 100.0]
    assert places.min() < 6
    assert places.max() > 10


@pytest.mark.parametrize(
    ("count", "largest", "expected"),
    [(300, 1024, 300), (1500, 1024, 750), (5000, 1024, 1000), (7, 2, 1)],
)
def test_batches_leave_few_images_out(count, largest, expected):
    assert batch_size_for(count, largest) == expected
