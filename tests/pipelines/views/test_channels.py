"""Views of images that aren't RGB of 8 bits: each engine against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.batches import crop_batches, image_batches, view_batches
from pipelines.policy import ViewPolicy, preset
from pipelines.sources import ArrayImages
from pipelines.views.fused import FusedViews
from pipelines.views.host import HostViews
from pipelines.views.random_params import dropped_channels, sample_params
from tests.helpers.keras_cv import ENGINES
from tests.reference import fused_views as linear
from tests.reference import views as reference

COUNT, SIZE = 16, 20
POLICY = ViewPolicy(
    crop_area=(0.2, 0.9),
    blur_probability=0.5,
    solarize_probability=0.5,
    patch_drop_probability=0.5,
    perspective_probability=0.5,
    channel_drop_probability=0.3,
)


def images(channels: int, dtype: type = np.uint8) -> np.ndarray:
    """Returns smooth images, far from black and white."""
    y, x = np.mgrid[0:24, 0:22] / 7.0
    phase, speed = np.random.default_rng(0).random((2, COUNT, channels, 1, 1)) * 5.0
    pictures = np.moveaxis(np.sin(x * speed + phase) * np.cos(y * speed - phase), 1, -1)
    return np.rint((0.5 + 0.2 * pictures) * np.iinfo(dtype).max).astype(dtype)


def params(count: int = COUNT) -> tf.Tensor:
    return sample_params(7, 1, tf.constant(3, tf.int64), tf.range(count, dtype=tf.int64))


def expected(pixels: np.ndarray) -> np.ndarray:
    """Returns the views of the host engines by NumPy."""
    policy, views = POLICY.for_channels(pixels.shape[3]), []
    for image, drawn in zip(
        pixels / np.iinfo(pixels.dtype).max, params()[:, 0].numpy().astype(np.float64), strict=True
    ):
        box = reference.crop_box(
            drawn[reference.CROP], *image.shape[:2], policy.crop_area, policy.crop_aspect
        )
        view = reference.crop_bilinear(image, box, SIZE)
        view = view[:, ::-1] if drawn[reference.FLIP] < policy.flip_probability else view
        views.append(reference.augment(view, drawn, policy))
    return np.array(views)


def different(views: np.ndarray, others: np.ndarray, tolerance: float) -> float:
    """Returns the fraction of values that differ: solarization and perspective jump."""
    return float((np.abs(views - others) > tolerance).mean())


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("channels", "dtype"), [(5, np.uint8), (1, np.uint16)])
def test_host_views_equal_numpy(name, channels, dtype):
    pixels = images(channels, dtype)
    views = HostViews(POLICY, SIZE, name)(tf.constant(pixels), params()[:, 0]).numpy()
    assert views.shape == (COUNT, SIZE, SIZE, channels)
    assert different(views, expected(pixels), 1e-4) < 0.01


@pytest.mark.parametrize(("channels", "dtype"), [(5, np.uint8), (16, np.uint16)])
def test_fused_views_equal_numpy(channels, dtype):
    pixels = images(channels, dtype)
    exact, fast = (
        FusedViews(POLICY, SIZE, 0, (0.0,) * channels, (1.0,) * channels, "bilinear", exact)
        for exact in (True, False)
    )
    # The host's crop isn't antialiased, so boxes are smaller than the view here.
    assert different(exact(pixels, params()).numpy(), expected(pixels), 5e-3) < 0.03
    policy = POLICY.for_channels(channels)
    drawn = params()[:, 0].numpy().astype(np.float64)
    by_numpy = [
        linear.linear_view(image, numbers, policy, SIZE, linear.hat)
        for image, numbers in zip(pixels / np.iinfo(dtype).max, drawn, strict=True)
    ]
    assert different(fast(pixels, params()).numpy(), np.array(by_numpy), 1e-4) < 0.01


def test_sixteen_bits_are_kept_where_eight_would_round():
    flat = np.full((COUNT, SIZE, SIZE, 1), 1000, np.uint16)
    flat[:, ::2] += 1
    layer = FusedViews(preset("none")[0], SIZE, 0, (0.0,), (1.0,))
    view = layer(flat, params()).numpy() * 65535
    np.testing.assert_allclose(view, flat, atol=0.01)


def test_channels_drop_independently_with_the_given_probability():
    policy = ViewPolicy(channel_drop_probability=0.25)
    drawn = sample_params(0, 1, tf.constant(0, tf.int64), tf.range(4000, dtype=tf.int64))
    dropped = dropped_channels(policy, drawn[:, 0], 16).numpy()
    np.testing.assert_allclose(dropped.mean(axis=0), 0.25, atol=0.03)
    correlations = np.corrcoef(dropped.T) - np.eye(16)
    assert np.abs(correlations).max() < 0.07


def test_normalisation_is_per_channel():
    pixels, mean, std = images(2), (0.1, 0.6), (0.5, 2.0)
    plain, normalized = (
        FusedViews(preset("none")[0], SIZE, 0, *numbers)(pixels, params()).numpy()
        for numbers in (((0.0,) * 2, (1.0,) * 2), (mean, std))
    )
    np.testing.assert_allclose(normalized, (plain - mean) / std, atol=1e-5)


@pytest.mark.parametrize("batchable", [True, False])
def test_batches_have_the_channels_and_type_of_the_images(batchable):
    source = ArrayImages(images(5, np.uint16), batchable=batchable)
    policies, numbers = (POLICY, POLICY), ((0.5,) * 5, (0.25,) * 5)
    views = next(iter(view_batches(source, policies, SIZE, 4, 0, *numbers)))
    assert [view.shape for view in views] == [(4, SIZE, SIZE, 5)] * 2
    if batchable:
        pixels, _ = next(iter(image_batches(source, 4, 0)))
    else:
        pixels, _, _ = next(iter(crop_batches(source, policies, SIZE, 4, 0)))
    assert pixels.dtype == tf.uint16
    assert pixels.shape[3] == 5
    assert int(tf.reduce_max(pixels)) > 255
