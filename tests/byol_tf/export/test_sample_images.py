"""The images that an export is measured on: small ones of large photos, and no more than are asked
for."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.export.sample_images import compared_and_calibration
from tests.helpers.small_run import CONFIG

SIZE = CONFIG["views"]["size"]


COUNT, SHAPE = 12, (600, 900, 3)


@pytest.fixture
def folder(tmp_path):
    """Large photos of one size, each of another shade of red and blue on the left."""
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


def test_large_photos_are_reduced_and_small_ones_are_not(config, folder):
    Image.new("RGB", (50, 30), (0, 0, 255)).save(folder / "0.png")
    images, calibration, why = compared_and_calibration(config, False)
    assert (len(images), calibration, why) == (COUNT, [], None)
    assert sorted(image.shape for image in images) == [(30, 50, 3)] + [(2 * SIZE, 3 * SIZE, 3)] * (
        COUNT - 1
    )
    assert sorted(image[0, -1, 0] for image in images) == [20 * number for number in range(COUNT)]
    for image in images:
        assert image.dtype == np.uint8
        assert (image[:, 0, 2] == 255).all()


def test_images_to_calibrate_on_are_squares_of_the_encoders_size_and_others(config, folder):
    images, calibration, why = compared_and_calibration(config, True)
    assert (len(images), why) == (COUNT - COUNT // 3, None)
    assert [square.shape for square in calibration] == [(SIZE, SIZE, 3)] * (COUNT // 3)
    shades = [int(image[0, -1, 0]) for image in (*images, *calibration)]
    assert sorted(shades) == [20 * number for number in range(COUNT)]
    inside = keras.layers.Resizing(
        SIZE, SIZE, "bilinear", crop_to_aspect_ratio=True, antialias=True
    )  # the encoder that they are for
    for square in calibration:
        photo = np.asarray(Image.open(folder / f"{square[0, -1, 0] // 20}.png"), np.float32)
        np.testing.assert_allclose(square, inside(photo), atol=1.5)  # Pillow rounds twice


def test_even_of_two_images_one_is_to_calibrate_on(config, folder):
    """Two are the fewest that a source takes."""
    for number in range(2, COUNT):
        (folder / f"{number}.png").unlink()
    images, calibration, why = compared_and_calibration(config, True)
    assert (len(images), len(calibration), why) == (1, 1, None)


def test_large_photos_are_not_held(config):
    """Also where a run would hold them, as they are of one size and few."""
    tracemalloc.start()
    compared_and_calibration(config, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.7 * COUNT * np.prod(SHAPE)


def test_why_there_are_none(config, tmp_path):
    gone = config.model_copy(
        update={"data": config.data.model_copy(update={"root": str(tmp_path / "gone")})}
    )
    images, calibration, why = compared_and_calibration(gone, True)
    assert images == calibration == []
    assert "there is no folder" in why
