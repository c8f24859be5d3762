"""Random samples of a source's images, and those of its probe."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.runs.data import COLLAPSE_IMAGES, probe_images, sample_pretrain_images
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


def held_out(root: str, *overrides: str, seed: int = 0) -> Config:
    overrides = ("probe.split=held_out", *overrides)
    return load_config(
        None, ["data.source=folder", f"data.root={root}", f"seed={seed}", *overrides]
    )


def test_held_out_probe_sees_no_test_image(source):
    fitted, tested = probe_images(held_out("x"), source)
    train, test = set(photos(source.train)), set(photos(source.test))
    assert set(photos(fitted)) | set(photos(tested)) == train
    assert not set(photos(fitted)) & set(photos(tested))
    assert not test & set(photos(tested))
    # 8 of each class are for training, and a fifth of those is held out
    assert np.bincount(tested.labels).tolist() == [2] * CLASSES
    assert [image.labels.tolist() for image in probe_images(config("x"), source)] == [
        source.train.labels.tolist(),
        source.test.labels.tolist(),
    ]


def test_held_out_images_are_drawn_by_the_seed(source):
    one, again, other = (
        photos(probe_images(held_out("x", seed=seed), source)[1]) for seed in (0, 0, 1)
    )
    assert one == again != other


def test_held_out_probe_needs_no_test_images(source):
    without = dataclasses.replace(source, test=None)
    assert probe_images(config("x"), without) is None
    fitted, tested = probe_images(held_out("x", "probe.train_images=20"), without)
    assert (len(fitted), len(tested)) == (20, 8)


def test_unlabelled_images_have_no_probe(source):
    without = dataclasses.replace(source, train=None, test=None)
    assert probe_images(config("x"), without) is probe_images(held_out("x"), without) is None
