"""Data sets of Hugging Face's datasets: saved to disk, as Parquet files, as a folder of images."""

import io
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import SourceError, open_source, plan_source
from tests.helpers.shard_files import jpeg
from tests.pipelines.sources.folder.test_source import tree


@pytest.fixture(autouse=True, scope="module")
def datasets() -> ModuleType:
    """Imported here: other processes that only collect these tests would take seconds for it."""
    return pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _own_cache(datasets, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def table(first: int, count: int, names: tuple[str, ...] = ("dog", "cat")) -> object:
    import datasets

    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(names))}
    )
    rows = {
        "img": [{"bytes": jpeg(n), "path": None} for n in range(first, first + count)],
        "label": [n % 2 for n in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def pixels(number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg(number))))


def test_saved_data_set_with_splits(datasets, tmp_path):
    splits = {"train": table(0, 6), "validation": table(50, 4)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "x")
    source = open_source("huggingface", root=str(tmp_path / "x"))
    assert (len(source.pretrain), len(source.train), len(source.test)) == (6, 6, 4)
    assert source.class_names == ("cat", "dog")
    for index, label in enumerate(source.train.labels):
        assert np.array_equal(source.train[index], pixels(index))
        assert source.class_names[label] == ("dog", "cat")[index % 2]
    assert plan_source("huggingface", root=str(tmp_path / "x")).counts == {
        "pretrain": 6,
        "train": 6,
        "test": 4,
    }


def test_labels_are_read_at_once(datasets, tmp_path, monkeypatch):
    table(0, 10).save_to_disk(tmp_path / "x")
    monkeypatch.setattr(
        datasets.arrow_dataset.Column, "__iter__", lambda self: pytest.fail("row by row")
    )
    assert len(open_source("huggingface", root=str(tmp_path / "x")).train) == 8


def test_saved_data_set_without_splits_is_divided(tmp_path):
    table(0, 10).save_to_disk(tmp_path / "x")
    source = open_source("huggingface", root=str(tmp_path / "x"))
    assert (len(source.train), len(source.test)) == (8, 2)


def test_folder_of_parquet_files(tmp_path):
    (tmp_path / "x").mkdir()
    table(0, 6).to_parquet(tmp_path / "x" / "train-00000-of-00001.parquet")
    table(6, 4).to_parquet(tmp_path / "x" / "test-00000-of-00001.parquet")
    source = open_source("huggingface", root=str(tmp_path / "x"))
    assert (len(source.train), len(source.test)) == (6, 4)
    shards = open_source("shards", root=str(tmp_path / "x"))
    for split in ("train", "test"):
        assert all(map(np.array_equal, getattr(source, split), getattr(shards, split)))
        assert getattr(source, split).labels.tolist() == getattr(shards, split).labels.tolist()


def test_folder_of_images(tmp_path):
    root = tree(tmp_path / "x", {"train/cat": 3, "train/dog": 3, "test/cat": 2, "test/dog": 2})
    source = open_source("huggingface", root=str(root))
    folder = open_source("folder", root=str(root))
    assert source.class_names == folder.class_names
    assert {image.tobytes() for image in source.train} == {i.tobytes() for i in folder.train}


def test_images_of_other_channels(datasets, tmp_path):
    stacks = np.random.default_rng(0).integers(0, 2**16, (6, 8, 9, 5), np.uint16)
    rows = []
    for stack in stacks:
        np.save(file := io.BytesIO(), stack)
        rows.append({"bytes": file.getvalue(), "path": None})
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(tmp_path / "x")
    source = open_source("huggingface", root=str(tmp_path / "x"), channels=5, depth=16)
    assert np.array_equal(list(source.pretrain), stacks)


def test_resumed_run_has_the_same_data_set(tmp_path):
    table(0, 10).save_to_disk(tmp_path / "x")
    begun = open_source("huggingface", root=str(tmp_path / "x"), cache="none")
    again = open_source(
        "huggingface", root=str(tmp_path / "x"), cache="none", manifest=begun.manifest
    )
    assert all(map(np.array_equal, begun.pretrain, again.pretrain))
    table(0, 11).save_to_disk(tmp_path / "y")
    with pytest.raises(SourceError, match=r"other images than when this run began.*10.*11"):
        open_source("huggingface", root=str(tmp_path / "y"), manifest=begun.manifest)


def test_rows_without_an_image_are_skipped(datasets, tmp_path):
    features = datasets.Features({"image": datasets.Image()})
    rows = [{"bytes": jpeg(n), "path": None} for n in range(5)]
    rows[1] = None
    datasets.Dataset.from_dict({"image": rows}, features=features).save_to_disk(tmp_path / "x")
    source = open_source("huggingface", root=str(tmp_path / "x"), max_unreadable_fraction=0.5)
    assert source.skipped == (("train/1", "its row has no image"),)


def test_what_cant_be_loaded_is_an_error(datasets, tmp_path):
    for root, message in (
        ("nobody/nothing", r"nobody/nothing: datasets can't load it: .*NAME:CONFIG"),
        (str(tmp_path), "can't load it"),
    ):
        with pytest.raises(SourceError, match=message):
            plan_source("huggingface", root=root)
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(tmp_path / "x")
    with pytest.raises(SourceError, match="no column of images; it has text"):
        plan_source("huggingface", root=str(tmp_path / "x"))
