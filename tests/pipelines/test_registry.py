"""The registry: a new source by one declaration, and samples of a source's images."""

import subprocess
import sys

import numpy as np
import pytest

from pipelines.batches import image_batches
from pipelines.registry import SOURCES, DataSource
from pipelines.sources import ArrayImages, SourceError, open_source, plan_source, sample_source
from tests.pipelines.sources.folder.test_source import photo, tree


def test_sample_reads_only_some_photos_of_the_folder(tmp_path):
    root = tree(tmp_path, {"": 9})
    few = sample_source("folder", 4, root=str(root))
    assert isinstance(few, ArrayImages)  # as the run would hold them
    assert len(few) == 4
    assert few.labels is None
    whole = {image.tobytes() for image in open_source("folder", root=str(root)).pretrain}
    assert {image.tobytes() for image in few} <= whole


def test_sample_skips_unreadable_photos_and_allows_several_sizes(tmp_path):
    for number in range(6):
        photo(tmp_path / f"{number}.png", size=(10 + number, 10))
    (tmp_path / "broken.png").write_bytes(b"no")
    few = sample_source("folder", 100, root=str(tmp_path))
    assert len(few) == 6
    assert few.shape is None
    assert sample_source("folder", 100, root=str(tmp_path), image_size=8).shape == (8, 8, 3)


def test_sample_is_of_the_images_to_pretrain_on(tmp_path):
    root = tree(tmp_path, {"train/cat": 3, "train/dog": 3, "unlabelled": 5})
    unlabelled = {image.tobytes() for image in sample_source("folder", 100, root=str(root))}
    assert len(unlabelled) == 5
    whole = open_source("folder", root=str(root), pretrain="train").pretrain
    assert len(sample_source("folder", 100, root=str(root), pretrain="train")) == len(whole)


def test_sample_of_textures_is_the_beginning_of_the_set(tmp_path):
    assert len(sample_source("textures", 7, image_size=16)) == 7
    assert np.array_equal(
        sample_source("textures", 7, image_size=16)[3],
        open_source("textures", image_size=16, pretrain_images=7).pretrain[3],
    )


def test_sample_of_unprepared_data_set_is_none(tmp_path):
    assert sample_source("cifar10", 5, root=str(tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_sample_raises_the_errors_of_the_source(tmp_path):
    with pytest.raises(SourceError, match="there is no folder"):
        sample_source("folder", 4, root=str(tmp_path / "none"))


TOY = """
import numpy as np

from pipelines.sources import LazyImages, RawSource, SourceInfo


def describe(request):
    return SourceInfo({"train": 20}, 2, (8, 8, 3), notes=("twenty squares",))


def load(request):
    images = LazyImages(20, square, np.arange(20) % 2, (8, 8, 3))
    return RawSource({"train": images}, ("even", "odd"), "toy", describe(request).notes)


def square(index):
    return np.full((8, 8, 3), 10 * index, np.uint8)
"""


def test_source_of_one_file_and_entry_is_planned_opened_and_batched(tmp_path, monkeypatch):
    (tmp_path / "toy_source.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "toy", DataSource("toy", "toy_source", has_unlabelled=False))
    plan = plan_source("toy", pretrain_images=6)
    source = open_source("toy", pretrain_images=6)
    assert plan.counts == {"pretrain": 6, "train": 20, "test": 0}
    assert (plan.in_memory, plan.bytes_in_memory) == (True, 20 * 8 * 8 * 3)
    assert (len(source.pretrain), len(source.train), source.test) == (6, 20, None)
    assert (source.class_names, source.notes) == (("even", "odd"), ("twenty squares",))
    assert [int(image[0, 0, 0]) for image in source.train] == list(range(0, 200, 10))
    images, params = next(iter(image_batches(source.train, batch_size=4, seed=0)))
    assert (images.shape, params.shape) == ((4, 8, 8, 3), (4, 2, 48))
    with pytest.raises(SourceError, match=r'data.root is "x", but "toy" reads none'):
        open_source("toy", root="x")


@pytest.mark.parametrize(
    "name", [name for name, source in SOURCES.items() if source.root is None and name != "arrays"]
)
def test_registry_agrees_with_what_sources_describe(name, tmp_path):
    declared = SOURCES[name]
    options = {"root": str(tmp_path)} if "root" in declared.takes else {}
    info = plan_source(name, **options)
    side = declared.image_side or declared.default_side
    assert info.image_shape == (None if side is None else (side, side, 3))
    assert declared.sizes_differ == (side is None)
    unlabelled = info.counts["pretrain"] != info.counts["train"]
    assert unlabelled == declared.has_unlabelled


def test_importing_registry_imports_nothing_heavy():
    """Configs are checked with it before NumPy or TensorFlow is imported."""
    heavy = "{'numpy', 'PIL', 'tensorflow', 'keras', 'tensorflow_datasets', 'sklearn'}"
    code = f"import sys, pipelines.registry; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
