"""Fused views against NumPy and against host views of the same parameters."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines.policy import PRESETS, ViewPolicy, preset
from pipelines.views.fused import FusedViews, image_lines
from pipelines.views.geometry import crop_matrices, resample
from pipelines.views.host import HostViews
from pipelines.views.random_params import sample_params
from tests.reference import fused_views as linear
from tests.reference import views as reference

VIEW = 1
COUNT, SIZE = 24, 20
OFF = {
    "crop_area": (1.0, 1.0),
    "crop_aspect": (1.0, 1.0),
    **dict.fromkeys(
        (
            f"{name}_probability"
            for name in (
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
NO_COLOR = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
EVERYTHING = {
    **dict.fromkeys(
        (f"{name}_probability" for name in ("solarize", "patch_drop", "perspective", "blur")), 0.5
    ),
    "grayscale_probability": 0.3,
    "crop_area": (0.08, 0.9),
}


@functools.cache
def layer(
    policy: ViewPolicy,
    size: int = SIZE,
    interpolation: str = "bilinear",
    exact: bool = False,
    **kwargs,
) -> FusedViews:
    """Returns a layer whose views are in [0, 1]."""
    return FusedViews(policy, size, VIEW, (0.0,) * 3, (1.0,) * 3, interpolation, exact, **kwargs)


@pytest.fixture
def eagerly():
    """Runs functions eagerly, so that nothing is compiled.

    `TestLayer` shows that compiled views are the same.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def photos(
    count: int = COUNT, height: int = SIZE, width: int = SIZE, low: int = 0, high: int = 255
) -> np.ndarray:
    """Returns smooth, colourful images with hard edges in them, uint8 from `low` to `high`."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width] / 7.0
    phase, speed = rng.random((2, count, 3, 1, 1)) * 6.0
    pictures = np.sin(x * speed + phase) * np.cos(y * speed[:, ::-1] - phase) / 2.0 + 0.5
    pictures = np.where((x > y + 1.0), pictures, pictures[:, ::-1] ** 2)
    return np.moveaxis(np.rint(low + pictures * (high - low)), 1, -1).astype(np.uint8)


def params(count: int = COUNT, epoch: int = 3, first: int = 100) -> tf.Tensor:
    """Returns the parameters of both views, `[count, 2, 48]`."""
    positions = tf.range(first, first + count, dtype=tf.int64)
    return sample_params(7, 2, tf.constant(epoch, tf.int64), positions)


def numbers(count: int = COUNT) -> np.ndarray:
    return params(count)[:, VIEW].numpy().astype(np.float64)


def host(policy: ViewPolicy, images: np.ndarray, size: int = SIZE) -> np.ndarray:
    return HostViews(policy, size)(tf.constant(images), params(len(images))[:, VIEW]).numpy()


@pytest.mark.usefixtures("eagerly")
class TestCrop:
    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize(("height", "width"), [(20, 20), (61, 44), (9, 90)])
    def test_crop_equals_numpy(self, interpolation, height, width):
        policy = ViewPolicy(
            **OFF
            | {"crop_area": (0.08, 0.95), "crop_aspect": (3 / 4, 4 / 3), "flip_probability": 0.5}
        )
        images = photos(COUNT, height, width)
        views = layer(policy, interpolation=interpolation)(images, params()).numpy()
        for image, drawn, view in zip(images / 255.0, numbers(), views, strict=True):
            expected = linear.linear_view(image, drawn, policy, SIZE, linear.KERNELS[interpolation])
            np.testing.assert_allclose(view, expected, atol=1e-4)

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [13, 20, 47])
    def test_full_crop_equals_tensorflow_antialiased_resize(self, interpolation, size):
        images = photos(3, 20, 20)
        rows, columns = crop_matrices(
            ViewPolicy(**OFF), params(3)[:, VIEW], (20, 20), size, interpolation
        )
        views = tf.transpose(
            resample(image_lines(images, "float32"), rows, columns), (0, 1, 3, 2)
        ).numpy()
        expected = tf.image.resize(images, (size, size), interpolation, antialias=True).numpy()
        # TensorFlow's kernel looks its bicubic weights up in a table.
        np.testing.assert_allclose(
            views, expected, atol=0.01 if interpolation == "bilinear" else 0.6
        )

    def test_bicubic_overshoot_is_clipped(self):
        stripes = np.zeros((2, 20, 20, 3), np.uint8)
        stripes[:, :, ::4] = 255
        views = layer(ViewPolicy(**OFF), 33, "bicubic")(stripes, params(2)).numpy()
        assert (views.min(), views.max()) == (0.0, 1.0)


POLICIES = {f"{name}{view}": preset(name)[view] for name in PRESETS for view in (0, 1)} | {
    "everything": ViewPolicy(**EVERYTHING)
}


@pytest.mark.usefixtures("eagerly")
class TestWhole:
    @pytest.mark.parametrize("name", ["byol0", "byol1", "stl100", "simclr0", "everything"])
    def test_linear_views_equal_numpy_in_jitter_order(self, name):
        policy, images = POLICIES[name], photos(height=30, width=26)
        views = layer(policy, 24, "bicubic" if name == "byol0" else "bilinear")(
            images, params()
        ).numpy()
        kernel = linear.keys if name == "byol0" else linear.hat
        for image, drawn, view in zip(images / 255.0, numbers(), views, strict=True):
            error = np.abs(view - linear.linear_view(image, drawn, policy, 24, kernel))
            # Solarization and the edges of a perspective jump: a pixel within a rounding error of
            # them may fall on either side.
            assert (error > 1e-4).mean() < 0.01

    @pytest.mark.parametrize("name", ["byol1", "stl100", "everything"])
    def test_exact_views_equal_numpy_and_host_views(self, name):
        policy, images = POLICIES[name], photos(height=22, width=24)
        views, other = (
            layer(policy, 24, exact=True)(images, params()).numpy(),
            host(policy, images, 24),
        )
        for image, drawn, view, same in zip(images / 255.0, numbers(), views, other, strict=True):
            box = reference.crop_box(
                drawn[reference.CROP], 22, 24, policy.crop_area, policy.crop_aspect
            )
            expected = reference.crop_bilinear(image, box, 24)
            expected = (
                expected[:, ::-1] if drawn[reference.FLIP] < policy.flip_probability else expected
            )
            assert (np.abs(view - reference.augment(expected, drawn, policy)) > 2e-3).mean() < 0.01
            assert (np.abs(view - same) > 2e-3).mean() < 0.01

    def test_exact_bicubic_clips_before_colours(self):
        stripes = np.zeros((COUNT, 20, 20, 3), np.uint8)
        stripes[:, :, ::4] = 255
        policy = ViewPolicy(**OFF | NO_COLOR | {"jitter_probability": 1.0, "brightness": 0.4})
        late, early = (
            layer(policy, 33, "bicubic", exact)(stripes, params()).numpy().min(axis=(1, 2, 3))
            for exact in (False, True)
        )
        offset = np.maximum(0.4 * (2.0 * numbers()[:, reference.COLOR][:, 0] - 1.0), 0.0)
        np.testing.assert_allclose(early, offset, atol=1e-5)
        assert (late < offset - 0.02)[offset > 0.1].all()


@pytest.mark.usefixtures("eagerly")
class TestBothEngines:
    """Linear views against host views, one operation at a time.

    The images are so far from black and white that nothing is clipped.
    """

    @pytest.mark.parametrize(
        "changes",
        [
            {"crop_area": (0.1, 0.9), "crop_aspect": (3 / 4, 4 / 3)},
            {"flip_probability": 0.5},
            {"jitter_probability": 0.7, "brightness": 0.2},
            {"jitter_probability": 0.7, "contrast": 0.4},
            {"jitter_probability": 0.7, "contrast": 0.4, "brightness": 0.1},
            {"jitter_probability": 0.7, "contrast": 0.3, "contrast_center": "zero"},
            {
                "jitter_probability": 0.7,
                "contrast": 0.3,
                "contrast_center": "zero",
                "brightness": 0.1,
            },
            {"blur_probability": 0.6, "blur_kernel_size": 3, "blur_sigma": (1.5, 1.5)},
            {"grayscale_probability": 0.4},
            {"blur_probability": 0.6},
            {"solarize_probability": 0.5, "solarize_threshold": 0.4},
            {"patch_drop_probability": 0.6},
            {"perspective_probability": 0.6},
        ],
        ids=lambda changes: "+".join(changes),
    )
    def test_linear_operations_are_equal(self, changes):
        policy, images = ViewPolicy(**OFF | NO_COLOR | changes), photos(low=80, high=170)
        views, expected = layer(policy)(images, params()).numpy(), host(policy, images)
        assert (np.abs(views - expected) > 2e-4).mean() < 2e-4
        moved = (
            np.abs(views - layer(ViewPolicy(**OFF))(images, params()).numpy()).max(axis=(1, 2, 3))
            > 1e-3
        )
        assert moved.any()

    @pytest.mark.parametrize(
        ("name", "strength", "closeness"), [("saturation", 0.4, 0.97), ("hue", 0.1, 0.97)]
    )
    def test_saturation_and_hue_change_colour_alike(self, name, strength, closeness):
        """Hue was once rotated in the wrong direction."""
        images = np.tile(
            np.random.default_rng(0).integers(80, 170, (200, 1, 1, 3), dtype=np.uint8), (1, 4, 4, 1)
        )
        policy = ViewPolicy(**OFF | NO_COLOR | {"jitter_probability": 1.0, name: strength})
        before = images[:, 0, 0] / 255.0
        linear_change = layer(policy, 4)(images, params(200)).numpy()[:, 0, 0] - before
        hsv_change = host(policy, images, 4)[:, 0, 0] - before
        # HSV keeps the lightest channel, the linear ones the mean; compared is the colour without
        # either.
        linear_change, hsv_change = (
            change - change.mean(axis=1, keepdims=True) for change in (linear_change, hsv_change)
        )
        assert np.corrcoef(linear_change.ravel(), hsv_change.ravel())[0, 1] > closeness
        assert 0.85 < linear_change.std() / hsv_change.std() < 1.15

    @pytest.mark.parametrize("name", ["byol0", "byol1", "simclr0"])
    def test_recipes_have_the_same_statistics(self, name):
        images = np.tile(photos(40, 24, 24), (5, 1, 1, 1))
        views, expected = (
            layer(POLICIES[name], 24)(images, params(200)).numpy(),
            host(POLICIES[name], images, 24),
        )
        for of in (
            lambda v: v.mean(axis=(1, 2, 3)),
            lambda v: v.std(axis=(1, 2)).mean(axis=1),
            lambda v: (v.max(axis=3) - v.min(axis=3)).mean(axis=(1, 2)),
            lambda v: np.abs(np.diff(v, axis=2)).mean(axis=(1, 2, 3)),
        ):
            ours, theirs = of(views), of(expected)
            assert abs(ours.mean() - theirs.mean()) < 0.02
            assert 0.9 < ours.std() / theirs.std() < 1.1
            assert np.corrcoef(ours, theirs)[0, 1] > 0.93
        gray = [
            np.isclose(v.max(axis=3), v.min(axis=3), atol=1e-5).all(axis=(1, 2))
            for v in (views, expected)
        ]
        assert (gray[0] == gray[1]).mean() > 0.98


class TestLayer:
    @pytest.mark.parametrize(
        ("name", "exact"),
        [
            *itertools.product(["everything"], (False, True)),  # each operation
            ("byol1", False),
            *(
                pytest.param(name, exact, marks=pytest.mark.long)
                for name, exact in [("byol1", True), *((f"{name}0", False) for name in PRESETS)]
            ),
        ],
    )
    def test_compiled_views_equal_eager_views(self, name, exact, request):
        views = layer(POLICIES[name], exact=exact)
        compiled = tf.function(views, jit_compile=True, autograph=False)(
            tf.constant(photos()), params()
        ).numpy()
        request.getfixturevalue("eagerly")
        assert (np.abs(compiled - views(photos(), params()).numpy()) > 1e-4).mean() < 2e-3

    @pytest.mark.parametrize("exact", [False, True])
    def test_view_depends_on_its_parameters_and_not_on_the_batch(self, exact):
        views, images = layer(POLICIES["everything"], exact=exact), photos()
        together = views(images, params()).numpy()
        np.testing.assert_array_equal(views(images, params()).numpy(), together)
        order = np.random.default_rng(0).integers(
            0, COUNT, COUNT
        )  # some are missing, some there twice
        np.testing.assert_allclose(
            views(images[order], tf.gather(params(), order)).numpy(), together[order], atol=2e-6
        )
        if not exact:
            np.testing.assert_allclose(
                views(images[order[:3]], tf.gather(params(), order[:3])).numpy(),
                together[order[:3]],
                atol=5e-6,
            )
        another = views(images, params(epoch=4)).numpy()
        assert np.abs(another - together).max(axis=(1, 2, 3)).min() > 0.01

    @pytest.mark.usefixtures("eagerly")
    def test_float_images_give_the_views_of_uint8_images(self):
        views, images = layer(POLICIES["byol1"]), photos()
        np.testing.assert_allclose(
            views(images / np.float32(255.0), params()).numpy(),
            views(images, params()).numpy(),
            atol=1e-5,
        )

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.004), ("float16", 0.0005)])
    def test_half_precision_is_close_to_float32(self, dtype, tolerance):
        for name in ("byol0", "everything"):
            views = layer(POLICIES[name], dtype=f"mixed_{dtype}")(photos(), params())
            assert views.dtype == dtype
            difference = np.abs(
                tf.cast(views, tf.float32).numpy()
                - layer(POLICIES[name])(photos(), params()).numpy()
            )
            assert difference.mean() < tolerance

    @pytest.mark.usefixtures("eagerly")
    def test_normalisation_is_the_last_operation(self):
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
        views = FusedViews(POLICIES["byol1"], SIZE, VIEW, mean, std)(photos(), params()).numpy()
        plain = layer(POLICIES["byol1"], interpolation="bicubic")(photos(), params()).numpy()
        np.testing.assert_allclose(views, (plain - mean) / std, atol=1e-5)

    @pytest.mark.usefixtures("eagerly")
    def test_layer_is_serializable(self):
        views = FusedViews(
            POLICIES["everything"],
            SIZE,
            VIEW,
            (0.5, 0.4, 0.3),
            (0.2, 0.25, 0.5),
            "bilinear",
            True,
            name="views",
        )
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(views))
        assert again.get_config() == views.get_config()
        np.testing.assert_array_equal(
            again(photos(), params()).numpy(), views(photos(), params()).numpy()
        )
        assert views.weights == []

    def test_layers_of_both_views_work_in_tf_data(self, request):
        both = [
            FusedViews(policy, SIZE, view, (0.5,) * 3, (0.2,) * 3)
            for view, policy in enumerate(preset("byol"))
        ]
        data = (
            tf.data.Dataset.from_tensor_slices((photos(), params()))
            .batch(8)
            .map(lambda *batch: tuple(view(*batch) for view in both))
        )
        pairs = list(data.as_numpy_iterator())
        request.getfixturevalue("eagerly")
        for view in range(2):
            np.testing.assert_allclose(
                np.concatenate([pair[view] for pair in pairs]),
                both[view](photos(), params()).numpy(),
                atol=1e-4,
            )
        assert np.abs(pairs[0][0] - pairs[0][1]).mean() > 0.1

    def test_layer_works_in_functional_model(self):
        inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8"), keras.Input((2, 48), dtype="float32")
        model = keras.Model(inputs, layer(POLICIES["byol0"], 16)(*inputs))
        assert model.output_shape == (None, 16, 16, 3)
        np.testing.assert_allclose(
            model((tf.constant(photos()), params())).numpy(),
            layer(POLICIES["byol0"], 16)(photos(), params()).numpy(),
            atol=1e-6,
        )

    def test_invalid_interpolation_and_shape_are_rejected(self):
        with pytest.raises(
            ValueError, match="interpolation: expected one of bilinear, bicubic; received 'nearest'"
        ):
            layer(POLICIES["byol0"], interpolation="nearest")
        with pytest.raises(
            ValueError,
            match=r"images: expected shape \[N, H, W, 3\], all but N known; received \(2, 8, 8, 1\)",
        ):
            image_lines(np.zeros((2, 8, 8, 1), np.uint8), "float32")
