"""Host views: each operation against NumPy, and the distribution of the parameters."""

import itertools
import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.policy import ViewPolicy, preset
from pipelines.views.host import HostViews
from pipelines.views.random_params import crop_boxes, sample_params
from tests.helpers.keras_cv import ENGINES, KERAS_CV_FAILS, KERAS_CV_REASON
from tests.reference import views as reference

SIZE = 12
OFF = {
    "crop_area": (1.0, 1.0),
    "crop_aspect": (1.0, 1.0),
    **dict.fromkeys(
        (
            f"{operation}_probability"
            for operation in (
                "flip",
                "jitter",
                "grayscale",
                "blur",
                "solarize",
                "patch_drop",
                "perspective",
            )
        ),
        0.0,
    ),
}
EVERYTHING = {
    "solarize_probability": 0.5,
    "patch_drop_probability": 0.5,
    "perspective_probability": 0.5,
    "blur_probability": 0.5,
    "grayscale_probability": 0.3,
}


def engine(size: int = SIZE, name: str = "keras", **changes) -> HostViews:
    """Returns an engine with every operation off but the given ones."""
    return HostViews(ViewPolicy(**OFF | changes), size, name)


def random_images(count: int, height: int = SIZE, width: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def random_views(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, size, size, 3), dtype=np.float32)


def random_params(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 48), dtype=np.float32)


def view_params(count: int) -> tf.Tensor:
    """Returns parameters of the first view in the first epoch, `[count, 48]`."""
    return sample_params(0, 1, tf.constant(0, tf.int64), tf.range(count, dtype=tf.int64))[:, 0]


def augmented(views: np.ndarray, params: np.ndarray, name: str = "keras", **changes) -> np.ndarray:
    maker = engine(views.shape[1], name, **changes)
    return maker.augment(tf.constant(views), tf.constant(params)).numpy()


def same_distribution(samples: np.ndarray, low: float, high: float) -> bool:
    """Returns the result of a Kolmogorov-Smirnov test against a uniform distribution.

    A false alarm has a probability of 1 in 10,000; parameters are seeded, so the result is fixed.
    """
    ordered = np.sort((samples - low) / (high - low))
    steps = np.arange(len(ordered) + 1) / len(ordered)
    distance = max(np.abs(ordered - steps[1:]).max(), np.abs(ordered - steps[:-1]).max())
    return distance < 2.23 / math.sqrt(len(ordered))


class TestParams:
    def rows(self, first, count, seed=(3, 0), epoch=0):
        positions = tf.range(first, first + count, dtype=tf.int64)
        run_seed, view = seed
        params = sample_params(run_seed, view + 1, tf.constant(epoch, tf.int64), positions)
        return params[:, view].numpy()

    def test_rows_epochs_seeds_and_views_have_different_numbers(self):
        sets = [
            self.rows(0, 64),
            self.rows(0, 64, epoch=1),
            self.rows(0, 64, (4, 0)),
            self.rows(0, 64, (3, 1)),
        ]
        # Of 12,288 different float32 multiples of 2^-23, about 9 pairs coincide by chance.
        assert len(np.unique(np.concatenate(sets))) > 12_288 - 40
        for one, other in itertools.combinations(sets, 2):
            assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.07

    def test_columns_are_uniform_and_independent(self):
        rows = self.rows(0, 4000)
        assert rows.dtype == np.float32
        assert rows.min() >= 0.0
        assert rows.max() < 1.0
        assert all(same_distribution(column, 0.0, 1.0) for column in rows.T)
        correlations = np.corrcoef(rows.T) - np.eye(48)
        assert np.abs(correlations).max() < 5.0 / math.sqrt(4000)

    def test_operations_use_different_numbers(self):
        """Changes each of the 48 numbers in turn, and looks which operations' images change."""
        operations = {
            "crop": {"crop_area": (0.2, 0.6), "crop_aspect": (0.5, 2.0)},
            "flip": {"flip_probability": 0.5},
            "jitter": {"jitter_probability": 0.5},
            "grayscale": {"grayscale_probability": 0.5},
            "blur": {"blur_probability": 0.5},
            "solarize": {"solarize_probability": 0.5},
            "perspective": {"perspective_probability": 0.5},
            "patches": {"patch_drop_probability": 0.5, "patch_drop_side": (0.3, 0.5)},
        }
        base = np.linspace(0.05, 0.45, 48, dtype=np.float32)[
            np.random.default_rng(0).permutation(48)
        ]
        params = np.tile(base, (97, 1))
        params[np.arange(48), np.arange(48)] = 0.93
        params[np.arange(48, 96), np.arange(48)] = 0.01
        images = np.tile(random_images(1, 24, 24), (97, 1, 1, 1))
        used = {}
        for name, changes in operations.items():
            views = engine(24, **changes)
            pictures = views.augment(
                views.crop(tf.constant(images), tf.constant(params)), tf.constant(params)
            ).numpy()
            used[name] = {
                row % 48 for row in range(96) if np.abs(pictures[row] - pictures[96]).max() > 1e-4
            }
        counts = {name: len(columns) for name, columns in used.items()}
        assert counts == {
            "crop": 4,
            "flip": 1,
            "jitter": 1 + 4 + 4,
            "grayscale": 1,
            "blur": 1 + 1,
            "solarize": 1,
            "perspective": 1 + 8,
            "patches": 1 + 12,
        }
        assert sum(len(columns) for columns in used.values()) == len(set().union(*used.values()))


class TestCrop:
    @pytest.mark.parametrize("size", [2, 7, 8, 32, 41, 47, 61, 94, 96, 97])
    def test_full_crop_at_own_size_is_the_image(self, size):
        """At 41, 47, 61, 94 and 97 px a rounding error once made the last row black."""
        images = random_images(3, size, size)
        views = engine(size).crop(tf.constant(images), tf.zeros((3, 48))).numpy()
        assert views.dtype == np.float32
        np.testing.assert_allclose(views, images / 255.0, atol=5e-5)
        mirrored = (
            engine(size, flip_probability=1.0).crop(tf.constant(images), tf.zeros((3, 48))).numpy()
        )
        np.testing.assert_allclose(mirrored, images[:, :, ::-1] / 255.0, atol=5e-5)

    @pytest.mark.parametrize("shape", [(8, 8), (1, 1), (5, 40), (40, 3)])
    def test_enlarged_white_image_has_no_dark_edge(self, shape):
        """Samples outside the outermost pixel centres were once black."""
        images = np.full((50, *shape, 3), 255, np.uint8)
        views = engine(24, crop_area=(0.08, 1.0), crop_aspect=(0.75, 4 / 3), flip_probability=0.5)
        crops = views.crop(tf.constant(images), tf.constant(random_params(50))).numpy()
        np.testing.assert_allclose(crops, 1.0, atol=1e-6)

    @pytest.mark.parametrize(("height", "width"), [(20, 20), (31, 18), (9, 26)])
    def test_random_crops_equal_numpy(self, height, width):
        images, params = random_images(24, height, width), random_params(24)
        area, aspect = (0.08, 1.0), (3 / 4, 4 / 3)
        crops = (
            engine(crop_area=area, crop_aspect=aspect, flip_probability=0.5)
            .crop(tf.constant(images), tf.constant(params))
            .numpy()
        )
        for image, numbers, crop in zip(images, params.astype(np.float64), crops, strict=True):
            box = reference.crop_box(numbers[reference.CROP], height, width, area, aspect)
            expected = reference.crop_bilinear(image / 255.0, box, SIZE)
            expected = expected[:, ::-1] if numbers[reference.FLIP] < 0.5 else expected
            np.testing.assert_allclose(crop, expected, atol=1e-4)

    def test_preset_none_is_largest_centred_square(self):
        policy = preset("none")[0]
        images, params = random_images(2, 16, 30), random_params(2)
        views = HostViews(policy, 16)
        expected = images[:, :, 7:23] / 255.0
        np.testing.assert_allclose(
            views.crop(tf.constant(images), tf.constant(params)).numpy(), expected, atol=5e-5
        )
        for image, numbers, square in zip(images, params, expected, strict=True):
            np.testing.assert_allclose(
                views.crop_one(tf.constant(image), tf.constant(numbers[None])).numpy(),
                square,
                atol=1e-6,
            )

    def test_batch_crop_and_single_crop_agree_on_smooth_image(self):
        y, x = np.mgrid[0:60, 0:80] / 10.0
        smooth = np.stack([np.sin(x) + 1, np.cos(y) + 1, np.sin(x - y) + 1], axis=-1) * 127
        image, params = smooth.astype(np.uint8), random_params(20)
        views = engine(24, crop_area=(0.3, 1.0), crop_aspect=(3 / 4, 4 / 3), flip_probability=0.5)
        together = views.crop(
            tf.constant(np.tile(image, (20, 1, 1, 1))), tf.constant(params)
        ).numpy()
        single = np.stack(
            [
                views.crop_one(tf.constant(image), tf.constant(numbers[None])).numpy()
                for numbers in params
            ]
        )
        # Single crops begin and end at whole pixels: off by at most half a pixel, across which this
        # image changes by .05.
        assert np.abs(together - single).max() < 0.06
        assert np.abs(together - single).mean() < 0.015
        assert np.abs(together - single[:, :, ::-1]).mean() > 0.1

    def test_single_crop_begins_at_nearest_pixel(self):
        image, params = random_images(1, 16, 16)[0], random_params(1)
        params[0, reference.CROP] = [
            0.0,
            0.5,
            2.6 / 8,
            5.4 / 8,
        ]  # a box of 8 x 8, 2.6 down and 5.4 across
        view = (
            engine(8, crop_area=(0.25, 0.25))
            .crop_one(tf.constant(image), tf.constant(params))
            .numpy()
        )
        np.testing.assert_allclose(view, image[3:11, 5:13] / 255.0, atol=1e-6)

    def test_single_crop_stays_in_range_on_hard_edges(self):
        stripes = np.zeros((40, 40, 3), np.uint8)
        stripes[:, ::4] = 255
        views = engine(64, crop_area=(0.3, 0.3))
        crops = [
            views.crop_one(tf.constant(stripes), tf.constant(numbers[None])).numpy()
            for numbers in random_params(5)
        ]
        assert (
            min(crop.min() for crop in crops) == 0.0
        )  # bicubic overshoots, so there is something to clip
        assert max(crop.max() for crop in crops) == 1.0

    @pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 200)])
    def test_single_crop_of_a_few_pixels_is_not_empty(self, shape):
        """A box at the far edge of such an image was once rounded to nothing."""
        white = tf.constant(np.full((*shape, 3), 255, np.uint8))
        views = engine(8, crop_area=(0.08, 0.1), crop_aspect=(3 / 4, 4 / 3))
        params = random_params(20)
        params[0, reference.CROP] = [0.0, 0.5, 0.999, 0.999]
        for numbers in params:
            np.testing.assert_allclose(
                views.crop_one(white, tf.constant(numbers[None])).numpy(), 1.0, atol=1e-6
            )

    def test_crop_area_log_aspect_and_position_are_uniform(self):
        policy = ViewPolicy(crop_area=(0.08, 0.7))  # up to .75 every box fits a square image
        y1, x1, y2, x2 = crop_boxes(policy, view_params(8000), 60, 60).numpy().astype(np.float64).T
        height, width = y2 - y1, x2 - x1
        assert min(y1.min(), x1.min()) >= 0.0
        assert max(y2.max(), x2.max()) <= 1.0 + 1e-6
        assert same_distribution(height * width, 0.08, 0.7)
        assert same_distribution(np.log(width / height), math.log(3 / 4), math.log(4 / 3))
        assert same_distribution(y1 / (1 - height), 0.0, 1.0)
        assert same_distribution(x1 / (1 - width), 0.0, 1.0)
        assert abs(np.corrcoef(height * width, np.log(width / height))[0, 1]) < 0.05

    def test_box_wider_than_image_is_cut(self):
        policy = ViewPolicy(crop_area=(0.9, 0.9), crop_aspect=(2.0, 2.0))
        y1, x1, y2, x2 = crop_boxes(policy, tf.constant(random_params(50)), 60, 60).numpy().T
        np.testing.assert_allclose(x1, 0.0, atol=1e-6)
        np.testing.assert_allclose(x2, 1.0, atol=1e-6)
        np.testing.assert_allclose(y2 - y1, math.sqrt(0.45), rtol=1e-5)

    def test_flips_are_as_frequent_as_their_probability(self):
        images = np.zeros((3000, 2, 2, 3), np.uint8)
        images[:, :, 1] = 255
        params = view_params(3000)
        flipped = (
            engine(2, flip_probability=0.3).crop(tf.constant(images), params).numpy()[:, 0, 0, 0]
            > 0.5
        )
        assert abs(flipped.mean() - 0.3) < 4.0 * math.sqrt(0.3 * 0.7 / 3000)


class TestColor:
    """Jitter with probability 1 and a single operation."""

    def jittered(self, views, params, name="keras", **strengths):
        zero = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
        return augmented(views, params, name, jitter_probability=1.0, **zero | strengths)

    @pytest.mark.parametrize("engine_name", ENGINES)
    @pytest.mark.parametrize(
        ("name", "strength", "column"),
        [("brightness", 0.4, 0), ("contrast", 0.9, 1), ("saturation", 0.8, 2), ("hue", 0.5, 3)],
    )
    def test_one_operation_equals_numpy(self, name, strength, column, engine_name):
        views, params = random_views(8), random_params(8)
        views[0] = views[0, :, :, :1]  # a grey one has no hue
        changed = self.jittered(views, params, engine_name, **{name: strength})
        operation = getattr(reference, name)
        around = 0.0 if name in ("brightness", "hue") else 1.0
        for view, numbers, after in zip(
            views.astype(np.float64), params.astype(np.float64), changed, strict=True
        ):
            amount = around + strength * (2.0 * numbers[reference.COLOR][column] - 1.0)
            np.testing.assert_allclose(after, operation(view, amount), atol=2e-5)

    def test_jitter_without_strengths_changes_nothing(self):
        np.testing.assert_allclose(
            self.jittered(random_views(3), random_params(3)), random_views(3), atol=1e-6
        )

    @pytest.mark.parametrize("engine_name", ENGINES)
    def test_contrast_keeps_each_channels_own_mean(self, engine_name):
        views = np.float32([0.3, 0.5, 0.7]) + 0.1 * (random_views(4) - 0.5)
        changed = self.jittered(views, random_params(4), engine_name, contrast=0.9)
        np.testing.assert_allclose(changed.mean(axis=(1, 2)), views.mean(axis=(1, 2)), atol=1e-6)
        assert np.abs(changed - views).max() > 0.01

    def test_saturation_keeps_the_lightest_channel(self):
        views = random_views(6)
        changed = self.jittered(views, random_params(6), saturation=1.0)
        np.testing.assert_allclose(changed.max(axis=-1), views.max(axis=-1), atol=1e-6)

    def test_hue_shift_of_a_third_permutes_channels(self):
        views, params = random_views(2), random_params(2)
        params[:, reference.COLOR] = 0.5 + 0.5 / 0.5 / 3.0  # 2u - 1 = 2/3 of hue .5
        changed = self.jittered(views, params, hue=0.5)
        np.testing.assert_allclose(changed, np.roll(views, 1, axis=-1), atol=1e-5)

    def test_each_image_has_its_own_order(self):
        orders = list(itertools.permutations(range(4)))
        params = random_params(24)
        for numbers, order in zip(params, orders, strict=True):
            numbers[reference.ORDER] = (np.argsort(order) + 0.5) / 4.0
        params[:, reference.COLOR] = [0.8, 0.95, 0.9, 0.8]
        views = np.tile(random_views(1, 6), (24, 1, 1, 1))
        policy = ViewPolicy(
            **OFF
            | {"jitter_probability": 1.0, "brightness": 1.0, "contrast": 1.0, "saturation": 0.8}
        )
        changed = HostViews(policy, 6).augment(tf.constant(views), tf.constant(params)).numpy()
        for view, numbers, after in zip(
            views.astype(np.float64), params.astype(np.float64), changed, strict=True
        ):
            np.testing.assert_allclose(after, reference.augment(view, numbers, policy), atol=5e-5)
        # So that a wrong order shows: only hue and saturation commute, and they are neighbours in
        # 12 of the 24.
        alike = np.abs(changed[:, None] - changed[None]).max(axis=(2, 3, 4)) < 1e-3
        assert len(np.unique(alike, axis=0)) == 18

    def test_all_24_orders_are_equally_frequent(self):
        rows = sample_params(5, 2, 2, tf.range(12_000, dtype=tf.int64))[:, 1, 10:14].numpy()
        _, counts = np.unique(np.argsort(rows, axis=1), axis=0, return_counts=True)
        assert len(counts) == 24
        chi_square = ((counts - 500.0) ** 2 / 500.0).sum()
        assert chi_square < 56.5  # 23 degrees of freedom, 1 in 10,000


class TestOtherOperations:
    @pytest.mark.parametrize("engine_name", ENGINES)
    def test_grayscale_has_the_papers_weights(self, engine_name):
        changed = augmented(
            random_views(3), random_params(3), engine_name, grayscale_probability=1.0
        )
        for view, after in zip(random_views(3).astype(np.float64), changed, strict=True):
            np.testing.assert_allclose(after, reference.grayscale(view), atol=1e-6)

    @pytest.mark.parametrize(("size", "radius"), [(12, 0), (20, 1), (44, 2)])
    def test_blur_equals_a_direct_convolution(self, size, radius):
        views, params = random_views(4, size), random_params(4)
        changed = augmented(views, params, blur_probability=1.0, blur_sigma=(0.1, 2.0))
        for view, numbers, after in zip(
            views.astype(np.float64), params.astype(np.float64), changed, strict=True
        ):
            np.testing.assert_allclose(
                after, reference.blur(view, 0.1 + 1.9 * numbers[reference.SIGMA], radius), atol=2e-6
            )

    def test_blur_darkens_edges_and_keeps_flat_areas(self):
        changed = augmented(
            np.ones((1, 96, 96, 3), np.float32),
            random_params(1),
            blur_probability=1.0,
            blur_sigma=(2.0, 2.0),
        )[0]
        np.testing.assert_allclose(
            changed[4:-4, 4:-4], 1.0, atol=1e-6
        )  # the kernel is 9 wide at 96
        assert changed[48, 3, 0] < 0.999
        assert 0.25 < changed[0, 0, 0] < 0.45

    @pytest.mark.parametrize("engine_name", ENGINES)
    @pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7, 1.0])
    def test_solarize_inverts_from_threshold_upwards(self, threshold, engine_name):
        views = random_views(3)
        views[0, 0, 0] = [0.0, 0.5, 1.0]
        changed = augmented(
            views,
            random_params(3),
            engine_name,
            solarize_probability=1.0,
            solarize_threshold=threshold,
        )
        safe = (np.abs(views - threshold) > 1e-5) | (views == threshold)
        np.testing.assert_allclose(
            changed[safe], reference.solarize(views.astype(np.float64), threshold)[safe], atol=1e-6
        )

    @pytest.mark.parametrize("distortion", [0.5, 0.9])
    def test_perspective_equals_numpy(self, distortion):
        y, x = np.mgrid[0:16, 0:16] / 5.0
        views = np.tile(
            np.stack([np.sin(x) + 1, np.cos(y) + 1, np.sin(x + y) + 1], axis=-1)[None] / 2.0,
            (5, 1, 1, 1),
        ).astype(np.float32)
        params = random_params(5)
        changed = augmented(
            views, params, perspective_probability=1.0, perspective_distortion=distortion
        )
        for view, numbers, after in zip(
            views.astype(np.float64), params.astype(np.float64), changed, strict=True
        ):
            np.testing.assert_allclose(
                after,
                reference.perspective(view, numbers[reference.CORNERS], distortion),
                atol=1e-3,
            )

    def test_perspective_moves_corners_inwards_and_leaves_black(self):
        """It once zoomed in instead: nothing was black."""
        views = np.ones((1, 17, 17, 3), np.float32)
        views[0, 0, 0] = [1.0, 0.0, 0.0]
        params = np.full((1, 48), 8 / 17, np.float32)
        changed = augmented(views, params, perspective_probability=1.0, perspective_distortion=1.0)[
            0
        ]  # by 4 pixels, all four alike
        np.testing.assert_allclose(changed[4, 4], [1.0, 0.0, 0.0], atol=1e-4)
        np.testing.assert_allclose(changed[8, 8], 1.0, atol=1e-4)
        assert changed[:4].max() < 1e-4
        assert changed[:, -4:].max() < 1e-4

    def test_dropped_patches_equal_numpy(self):
        views, params = random_views(12, 20) + 0.01, random_params(12)
        changed = augmented(views, params, patch_drop_probability=1.0, patch_drop_side=(0.1, 0.3))
        for view, numbers, after in zip(views, params.astype(np.float64), changed, strict=True):
            boxes = reference.rectangles(numbers[reference.RECTANGLES], (0.1, 0.3))
            np.testing.assert_array_equal(after, reference.drop_patches(view, boxes))

    def test_dropped_patches_cover_as_much_as_in_the_authors_code(self):
        """11.4% of a view is black in zhihua-zhang/BYOL, by its own arithmetic on 20,000 views."""
        changed = augmented(
            np.ones((600, 96, 96, 3), np.float32),
            view_params(600).numpy(),
            patch_drop_probability=1.0,
        )
        black = (changed[..., 0] == 0.0).mean(axis=(1, 2))
        assert 0.11 < black.mean() < 0.118
        assert 0.02 < black.min() < black.max() < 0.28

    @pytest.mark.parametrize("center", ["mean", "zero"])
    def test_contrast_keeps_its_center(self, center):
        views, params = random_views(40), random_params(40)
        params[:, reference.JITTER] = 0.0
        changes = dict.fromkeys(("brightness", "saturation", "hue"), 0.0)
        changed = augmented(
            views, params, jitter_probability=1.0, contrast=0.8, contrast_center=center, **changes
        )
        for view, numbers, after in zip(views, params, changed, strict=True):
            factor = 1.0 + 0.8 * (2.0 * numbers[reference.COLOR][1] - 1.0)
            expected = reference.contrast(view, factor, center)
            np.testing.assert_allclose(after, expected, atol=1e-5)


class TestChangedImages:
    COLUMNS = (
        ("jitter_probability", reference.JITTER),
        ("grayscale_probability", reference.GRAY),
        ("blur_probability", reference.BLUR),
        ("solarize_probability", reference.SOLARIZE),
        ("perspective_probability", reference.PERSPECTIVE),
        ("patch_drop_probability", reference.PATCHES),
    )

    @pytest.mark.parametrize(("field", "column"), COLUMNS)
    def test_images_with_numbers_below_probability_are_changed(self, field, column):
        views, params = random_views(30, 24), random_params(30)
        for probability in (0.0, 0.4, 1.0):
            changed = augmented(views, params, blur_sigma=(1.0, 2.0), **{field: probability})
            moved = np.array(
                [
                    np.abs(after - before).max() > 1e-3
                    for after, before in zip(changed, views, strict=True)
                ]
            )
            np.testing.assert_array_equal(moved, params[:, column] < probability)
            np.testing.assert_array_equal(changed[~moved], views[~moved])

    @pytest.mark.parametrize(("field", "column"), COLUMNS)
    @pytest.mark.parametrize("number", [0.1, 0.9])
    def test_batch_is_changed_completely_or_not_at_all(self, field, column, number):
        views, params = random_views(3, 24), random_params(3)
        params[:, column] = number
        moved = (
            np.abs(augmented(views, params, blur_sigma=(1.0, 2.0), **{field: 0.5}) - views).max(
                axis=(1, 2, 3)
            )
            > 1e-3
        )
        assert moved.tolist() == [number < 0.5] * 3


class TestWhole:
    @pytest.mark.parametrize("engine_name", ENGINES)
    def test_all_operations_together_equal_numpy(self, engine_name):
        policy = ViewPolicy(**EVERYTHING)
        y, x = np.mgrid[0:24, 0:24] / 6.0
        smooth = (
            np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=-1)[None]
            * np.linspace(0.2, 0.5, 20)[:, None, None, None]
            + 0.5
        )
        views, params = smooth.astype(np.float32), random_params(20)
        maker = HostViews(policy, 24, engine_name)
        changed = maker.augment(tf.constant(views), tf.constant(params)).numpy()
        for view, numbers, after in zip(
            views.astype(np.float64), params.astype(np.float64), changed, strict=True
        ):
            error = np.abs(after - reference.augment(view, numbers, policy))
            # Solarization has a jump: a pixel within a rounding error of the threshold may fall on
            # either side.
            assert (error > 2e-3).mean() < 0.005
        assert np.abs(changed - views).max(axis=(1, 2, 3)).min() > 1e-3

    def test_view_is_independent_of_batch(self):
        views = HostViews(ViewPolicy(**EVERYTHING), 20)
        images, params = random_images(9, 26, 22), view_params(9)
        together = views(tf.constant(images), params).numpy()
        for index in (0, 4, 8):
            only = slice(index, index + 1)
            alone = views(tf.constant(images[only]), params[only]).numpy()
            np.testing.assert_allclose(alone[0], together[index], atol=1e-6)
        another = views(tf.constant(images), tf.constant(random_params(9))).numpy()
        assert np.abs(another - together).max(axis=(1, 2, 3)).min() > 0.01

    @pytest.mark.skipif(KERAS_CV_FAILS, reason=KERAS_CV_REASON)
    @pytest.mark.parametrize("view", [0, 1])
    @pytest.mark.parametrize("name", ["byol", "stl10", "simclr"])
    def test_keras_and_keras_cv_make_the_same_views(self, name, view):
        policy, images, params = preset(name)[view], random_images(64, 40, 36), view_params(64)
        made, expected = (
            HostViews(policy, 32, engine)(tf.constant(images), params).numpy()
            for engine in ("keras", "keras_cv")
        )
        np.testing.assert_allclose(made, expected, atol=1e-4)

    def test_layers_leave_the_global_generators_alone(self):
        """Python's, which Keras' layers take a seed from where they are given none."""
        before = random.getstate()
        HostViews(ViewPolicy(), 8)
        assert random.getstate() == before

    @pytest.mark.parametrize("engine_name", ENGINES)
    @pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
    def test_views_are_finite_float32_in_range_under_every_precision(self, policy, engine_name):
        keras.mixed_precision.set_global_policy(policy)
        try:
            views = HostViews(ViewPolicy(**EVERYTHING), 20, engine_name)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        images = random_images(60, 20, 20)
        images[:3], images[3:6] = 0, 255
        batch = views(tf.constant(images), view_params(60)).numpy()
        assert batch.dtype == np.float32
        assert batch.shape == (60, 20, 20, 3)
        assert np.isfinite(batch).all()
        assert batch.min() >= 0.0
        assert batch.max() <= 1.0
        assert batch.std() > 0.1
