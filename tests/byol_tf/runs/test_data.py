"""Random samples of a source's images."""

import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.runs.data import COLLAPSE_IMAGES, sample_pretrain_images
from byol_tf.runs.sources import source_options
from pipelines.sources import Images, Source, open_source

CLASSES, PER_CLASS = 4, 10


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    """A folder with a folder for each class; the red channel of its photos is the class."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(CLASSES):
        (root / f"class-{number}").mkdir()
        for photo in range(PER_CLASS):
            pixels = np.full((8, 8, 3), (number, photo, 0), np.uint8)
            Image.fromarray(pixels).save(root / f"class-{number}" / f"{photo}.png")
    return open_source(**source_options(config(root)))


def config(root: str, seed: int = 0) -> Config:
    return load_config(None, ["data.source=folder", f"data.root={root}", f"seed={seed}"])


def photos(images: Images) -> list[tuple[int, int]]:
    """Returns (class, number) of each photo."""
    return [tuple(images[index][0, 0, :2].tolist()) for index in range(len(images))]


def test_sample_of_class_folders_has_all_classes(source):
    first = photos(source.pretrain)[: CLASSES * 2]
    assert len({label for label, _ in first}) == 1  # the source lists them by path
    for seed in range(10):
        sample = photos(sample_pretrain_images(config("x", seed), source, CLASSES * PER_CLASS // 2))
        assert {label for label, _ in sample} == set(range(CLASSES))


def test_sample_is_a_function_of_the_seed(source):
    one, again, other = (
        photos(sample_pretrain_images(config("x", seed), source, 12)) for seed in (0, 0, 1)
    )
    assert one == again != other
    assert len(set(one)) == 12


def test_larger_sample_contains_smaller(source):
    small, large = (photos(sample_pretrain_images(config("x"), source, count)) for count in (5, 20))
    assert set(small) < set(large)


def test_sample_of_few_images_is_all_of_them(source):
    assert len(source.pretrain) < COLLAPSE_IMAGES
    assert photos(sample_pretrain_images(config("x"), source)) == photos(source.pretrain)
