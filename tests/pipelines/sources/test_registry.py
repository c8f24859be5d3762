"""A few images, read as the run would read them."""

import numpy as np
import pytest

from pipelines.sources import ArrayImages, SourceError, open_source, sample_source
from tests.pipelines.sources.folder.test_source import photo, tree


def test_they_are_photos_of_the_folder_and_the_others_are_left_alone(tmp_path):
    root = tree(tmp_path, {"": 9})
    few = sample_source("folder", 4, root=str(root))
    assert isinstance(few, ArrayImages)  # as the run would hold them
    assert len(few) == 4
    assert few.labels is None
    whole = {image.tobytes() for image in open_source("folder", root=str(root)).pretrain}
    assert {image.tobytes() for image in few} <= whole


def test_unreadable_ones_are_left_out_and_sizes_may_differ(tmp_path):
    for number in range(6):
        photo(tmp_path / f"{number}.png", size=(10 + number, 10))
    (tmp_path / "broken.png").write_bytes(b"no")
    few = sample_source("folder", 100, root=str(tmp_path))
    assert len(few) == 6
    assert few.shape is None
    assert sample_source("folder", 100, root=str(tmp_path), image_size=8).shape == (8, 8, 3)


def test_only_those_to_pretrain_on(tmp_path):
    root = tree(tmp_path, {"train/cat": 3, "train/dog": 3, "unlabelled": 5})
    unlabelled = {image.tobytes() for image in sample_source("folder", 100, root=str(root))}
    assert len(unlabelled) == 5
    whole = open_source("folder", root=str(root), pretrain="train").pretrain
    assert len(sample_source("folder", 100, root=str(root), pretrain="train")) == len(whole)


def test_drawn_ones_are_drawn(tmp_path):
    assert len(sample_source("textures", 7, image_size=16)) == 7
    assert np.array_equal(
        sample_source("textures", 7, image_size=16)[3],
        open_source("textures", image_size=16, pretrain_images=7).pretrain[3],
    )


def test_what_has_to_be_prepared_is_not_prepared(tmp_path):
    assert sample_source("cifar10", 5, root=str(tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_errors_are_those_of_the_source(tmp_path):
    with pytest.raises(SourceError, match="there is no folder"):
        sample_source("folder", 4, root=str(tmp_path / "none"))
