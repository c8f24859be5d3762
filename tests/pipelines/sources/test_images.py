"""Sets of images: every subset, concatenation and resized set equals NumPy indexing."""

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import (
    ArrayImages,
    LazyImages,
    balanced_indices,
    concatenated,
    resized,
    subset,
    without_labels,
)
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import resize_and_center_crop
from pipelines.sources.loading import read_through


def pixels(count: int, height: int = 5, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def lazy(array: np.ndarray, labels: np.ndarray | None = None) -> LazyImages:
    return LazyImages(len(array), lambda index: array[index], labels, array.shape[1:])


@pytest.fixture(params=["array", "lazy", "subset", "concatenated", "unfit"])
def images_and_truth(request):
    array, labels = pixels(10), np.arange(10) % 3
    match request.param:
        case "array":
            return ArrayImages(array, labels), array, labels
        case "lazy":
            return lazy(array, labels), array, labels
        case "subset":
            chosen = np.array([7, 0, 7, 3])
            return subset(ArrayImages(array, labels), chosen), array[chosen], labels[chosen]
        case "concatenated":
            return (
                concatenated(ArrayImages(array[:4], labels[:4]), lazy(array[4:], labels[4:])),
                array,
                labels,
            )
        case "unfit":
            square = pixels(10, 4, 4)
            return resized(ArrayImages(square, labels), 4), square, labels


class TestViews:
    def test_index_and_batch(self, images_and_truth):
        images, truth, labels = images_and_truth
        assert len(images) == len(truth)
        assert images.shape == truth.shape[1:]
        assert images.labels.dtype == np.int64
        np.testing.assert_array_equal(images.labels, labels)
        for index in range(len(truth)):
            np.testing.assert_array_equal(images[index], truth[index])
        indices = np.random.default_rng(1).integers(0, len(truth), 7)
        batch = images.batch(indices)
        assert batch.dtype == np.uint8
        np.testing.assert_array_equal(batch, truth[indices])
        assert images.batch(np.array([], np.int64)).shape == (0, *truth.shape[1:])

    def test_index_outside(self, images_and_truth):
        images, _, _ = images_and_truth
        for index in (-1, len(images)):
            with pytest.raises(IndexError, match=f"received {index}"):
                images[index]
        assert len(list(images)) == len(images)

    def test_without_labels(self, images_and_truth):
        images, truth, _ = images_and_truth
        bare = without_labels(images)
        assert bare.labels is None
        np.testing.assert_array_equal(bare.batch(np.arange(len(truth))), truth)
        assert subset(bare, [1, 2]).labels is None

    def test_concatenation_with_unlabelled_set_has_no_labels(self):
        assert (
            concatenated(ArrayImages(pixels(2), np.zeros(2, int)), ArrayImages(pixels(2))).labels
            is None
        )

    def test_invalid_arrays_are_rejected(self):
        with pytest.raises(
            ValueError,
            match=r"expected uint8 or uint16 .* of 1 to 16 channels, received float64 \[2, 3, 3, 3\]",
        ):
            ArrayImages(np.zeros((2, 3, 3, 3)))
        with pytest.raises(ValueError, match=r"expected integers \[2\], received int64 \[3\]"):
            ArrayImages(pixels(2), np.zeros(3, int))


class TestFit:
    def test_shorter_side_is_resized_and_centre_cropped(self):
        wide = np.zeros((20, 60, 3), np.uint8)
        wide[:, 20:40] = 200  # the central square
        assert (
            resize_and_center_crop(wide, 10).min() > 180
        )  # its border mixes a little with its neighbours
        assert resize_and_center_crop(wide, 10).shape == (10, 10, 3)
        assert resize_and_center_crop(wide.transpose(1, 0, 2), 10).shape == (10, 10, 3)
        np.testing.assert_array_equal(resize_and_center_crop(wide, 20), wide[:, 20:40])

    def test_square_is_resized_as_by_pillow(self):
        square = pixels(1, 33, 33)[0]
        expected = np.asarray(Image.fromarray(square).resize((16, 16), Image.Resampling.BICUBIC))
        np.testing.assert_array_equal(resize_and_center_crop(square, 16), expected)

    def test_resize_is_antialiased(self):
        fine = np.zeros((64, 64, 3), np.uint8)
        fine[:, ::2] = 255  # without a filter every other column would vanish
        assert np.ptp(resize_and_center_crop(fine, 16)[:, 2:-2].astype(int)) < 40

    def test_resized_images_have_a_common_shape(self):
        shapes = [(5, 9), (12, 7), (8, 8)]
        images = resized(LazyImages(3, lambda index: pixels(1, *shapes[index])[0], np.arange(3)), 8)
        assert images.shape == (8, 8, 3)
        assert images.batch(np.arange(3)).shape == (3, 8, 8, 3)
        np.testing.assert_array_equal(images[2], pixels(1, 8, 8)[0])


class TestReadThrough:
    def test_readable_images_keep_their_order(self):
        array, labels = pixels(50), np.arange(50)

        def read(index: int) -> np.ndarray:
            if index % 7 == 3:
                raise UnreadableImage(f"broken {index}")
            return array[index]

        readable = np.flatnonzero(np.arange(50) % 7 != 3)
        unreadable = tuple((index, f"broken {index}") for index in range(3, 50, 7))
        for in_memory in (True, False):
            reading = read_through(LazyImages(50, read, labels), in_memory=in_memory)
            np.testing.assert_array_equal(reading.readable, readable)
            assert reading.unreadable == unreadable
            assert reading.in_memory == in_memory
            images = reading.images
            assert images.shape == (5, 4, 3)
            np.testing.assert_array_equal(images.batch(np.arange(len(readable))), array[readable])
            np.testing.assert_array_equal(images.labels, labels[readable])

    def test_images_of_two_sizes_are_not_cached(self):
        images = LazyImages(20, lambda index: pixels(1, 5 if index < 15 else 6)[0])
        reading = read_through(images, in_memory=True)
        assert not reading.in_memory
        assert reading.images.shape is None
        with pytest.raises(ValueError, match="one shape"):
            reading.images.batch(np.arange(3))

    def test_other_errors_end_the_pass(self):
        def read(index: int) -> np.ndarray:
            raise RuntimeError("a mistake of the program")

        with pytest.raises(RuntimeError, match="a mistake"):
            read_through(LazyImages(100, read), in_memory=False)


class TestBalancedIndices:
    def test_class_counts_are_equal(self):
        labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
        indices = balanced_indices(labels, 100, seed=4)
        np.testing.assert_array_equal(np.bincount(labels[indices]), 10)
        assert np.all(np.diff(indices) > 0)
        assert indices.dtype == np.int64

    def test_small_class_is_sampled_completely(self):
        labels = np.repeat([0, 1, 5], [3, 40, 40])
        np.testing.assert_array_equal(
            np.bincount(labels[balanced_indices(labels, 43, seed=0)], minlength=6),
            [3, 20, 0, 0, 0, 20],
        )

    @pytest.mark.parametrize("count", [0, 1, 7, 83, 500])
    def test_samples_are_balanced_and_nested(self, count):
        labels = np.repeat([0, 1, 5], [3, 40, 40])
        indices = balanced_indices(labels, count, seed=2)
        assert len(indices) == min(count, 83)
        assert set(indices) <= set(balanced_indices(labels, count + 5, seed=2))
        taken = np.bincount(labels[indices], minlength=6)[[1, 5]]
        assert abs(int(taken[0]) - int(taken[1])) <= 1

    def test_seed_decides_the_sample(self):
        labels = np.zeros(100, int)
        np.testing.assert_array_equal(
            balanced_indices(labels, 10, 1), balanced_indices(labels, 10, 1)
        )
        assert not np.array_equal(balanced_indices(labels, 10, 1), balanced_indices(labels, 10, 2))
