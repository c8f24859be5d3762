"""Samples for the verification of exports: their number, size and memory."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.export.sample_images import load_samples
from tests.helpers.small_run import CONFIG

SIZE = CONFIG["views"]["size"]
COUNT, SHAPE = 12, (600, 900, 3)


@pytest.fixture
def folder(tmp_path):
    """Returns a folder of large photos of one size, each of another red, blue on the left."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(COUNT):
        pixels = np.full(SHAPE, 20 * number, np.uint8)
        pixels[:, : SHAPE[1] // 2, 2] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png", compress_level=1)
    return folder


@pytest.fixture
def config(folder, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | {"data": {"source": "folder", "root": str(folder)}}))
    return load_config(path)


def test_large_photos_are_reduced_and_small_ones_stay(config, folder):
    Image.new("RGB", (50, 30), (0, 0, 255)).save(folder / "0.png")
    samples = load_samples(config, calibrate=False)
    images = samples.images
    assert (len(images), samples.calibration, samples.unavailable) == (COUNT, [], None)
    assert sorted(image.shape for image in images) == [(30, 50, 3)] + [(2 * SIZE, 3 * SIZE, 3)] * (
        COUNT - 1
    )
    assert sorted(image[0, -1, 0] for image in images) == [20 * number for number in range(COUNT)]
    for image in images:
        assert image.dtype == np.uint8
        assert (image[:, 0, 2] == 255).all()


def test_calibration_images_are_other_images_as_squares(config, folder):
    samples = load_samples(config, calibrate=True)
    images, calibration = samples.images, samples.calibration
    assert (len(images), samples.unavailable) == (COUNT - COUNT // 3, None)
    assert [square.shape for square in calibration] == [(SIZE, SIZE, 3)] * (COUNT // 3)
    shades = [int(image[0, -1, 0]) for image in (*images, *calibration)]
    assert sorted(shades) == [20 * number for number in range(COUNT)]
    resizing = keras.layers.Resizing(  # as inside the exported encoder
        SIZE, SIZE, "bilinear", crop_to_aspect_ratio=True, antialias=True
    )
    for square in calibration:
        photo = np.asarray(Image.open(folder / f"{square[0, -1, 0] // 20}.png"), np.float32)
        np.testing.assert_allclose(square, resizing(photo), atol=1.5)  # Pillow rounds twice


def test_one_of_two_images_is_for_calibration(config, folder):
    """Two are the fewest that a source takes."""
    for number in range(2, COUNT):
        (folder / f"{number}.png").unlink()
    samples = load_samples(config, calibrate=True)
    assert len(samples.images) == len(samples.calibration) == 1
    assert samples.unavailable is None


def test_large_photos_are_not_cached(config):
    """A run would cache them, as they are few and of one size."""
    tracemalloc.start()
    load_samples(config, calibrate=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * COUNT * np.prod(SHAPE)


def test_reason_for_unavailable_images_is_given(config, tmp_path):
    gone = config.model_copy(
        update={"data": config.data.model_copy(update={"root": str(tmp_path / "gone")})}
    )
    samples = load_samples(gone, calibrate=True)
    assert not samples.images and not samples.calibration
    assert "there is no folder" in samples.unavailable
