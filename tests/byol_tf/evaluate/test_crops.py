"""Random crops of labelled images, and the labels that go with them."""

import numpy as np
import pytest
from PIL import Image

from byol_tf.evaluate.crops import (
    NO_AUGMENTATION,
    centre_crop,
    crop_layer,
    even_batch_size,
    labelled_batches,
)
from pipelines.sources import ArrayImages, Images


class MixedSizes(Images):
    """Images of several sizes; all pixels of image i are i."""

    def __init__(self, count: int):
        self.count, self.labels, self.shape = count, np.arange(count), None

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return np.full((9 + index % 3, 12 - index % 2, 3), index, np.uint8)


def equal_sizes(count: int) -> ArrayImages:
    return ArrayImages(
        np.repeat(np.arange(count, dtype=np.uint8), 10 * 10 * 3).reshape(count, 10, 10, 3),
        np.arange(count),
    )


@pytest.mark.parametrize("make", [equal_sizes, MixedSizes])
def test_indices_are_those_of_the_crops(make):
    images = make(40)
    crops = crop_layer(images, 8)
    batches = []
    for pixels, params, indices in labelled_batches(images, 8, 16, seed=5).take(4):
        views = crops(pixels, params).numpy()
        assert views.shape == (16, 8, 8, 3)
        np.testing.assert_allclose(
            views, np.broadcast_to(indices.numpy()[:, None, None, None], views.shape), atol=1e-3
        )
        batches.append(indices.numpy())
    assert len(set(np.concatenate(batches[:2]))) == 32  # an epoch has no image twice
    assert not np.array_equal(batches[0], batches[2])


def test_views_are_crops_and_flips_only():
    """Crops of an image with one red column are red and black, and both orientations occur."""
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, 2, 0] = 255
    images = ArrayImages(np.repeat(image, 64, axis=0), np.zeros(64, int))
    pixels, params, _ = next(iter(labelled_batches(images, 16, 64, seed=0)))
    views = crop_layer(images, 16)(pixels, params).numpy()
    assert views[..., 1:].max() == 0.0
    assert 0.0 <= views.min() <= views.max() <= 255.0
    columns = views[..., 0].mean(axis=1).argmax(axis=1)[views[..., 0].max(axis=(1, 2)) > 100.0]
    assert columns.min() < 6
    assert columns.max() > 10


@pytest.mark.parametrize(
    ("count", "largest", "expected"),
    [(300, 1024, 300), (1500, 1024, 750), (5000, 1024, 1000), (7, 2, 1)],
)
def test_batch_size_leaves_few_images_over(count, largest, expected):
    assert even_batch_size(count, largest) == expected


def test_images_without_augmentation_are_the_images():
    images = ArrayImages(
        np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8), np.arange(20)
    )
    pixels, params, indices = next(iter(labelled_batches(images, 16, 20, 0, NO_AUGMENTATION)))
    views = crop_layer(images, 16, NO_AUGMENTATION)(pixels, params).numpy()
    np.testing.assert_allclose(views, images.batch(indices.numpy()), atol=0.05)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (256, 341), (500, 256)])
def test_centre_crop_is_224_of_256_pixels(height, width):
    image = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    top, left = (height - 224) // 2, (width - 224) // 2
    np.testing.assert_array_equal(
        centre_crop(image, 224), image[:, top : top + 224, left : left + 224]
    )


def test_centre_crop_equals_pillow_on_photos(photos):
    """Resized to 256 along the shorter side, bicubic, then 224 of the centre, as the papers say."""
    files = sorted((photos / "imagenette_stl10like" / "test").rglob("*.*"))[:4]
    assert files
    for file in files:
        photo = Image.open(file).convert("RGB").resize((300, 240), Image.Resampling.LANCZOS)
        resized = photo.resize((320, 256), Image.Resampling.BICUBIC)
        expected = np.asarray(resized.crop((48, 16, 272, 240)), np.float64)
        received = centre_crop(np.asarray(photo)[None], 224)[0]
        assert np.abs(received - expected).mean() < 0.6  # of 255: they round at other places


def test_whole_centre_crop_is_the_largest_square():
    image = np.random.default_rng(0).integers(0, 256, (1, 40, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(centre_crop(image, 40, 1.0), image[:, :, 12:52])
