"""Data sets of TFDS: its own builders, run on small archives in the originals' layouts."""

import importlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tensorflow as tf

from pipelines.sources import ArrayImages, Images, SourceError, open_source, plan_source

Record = Callable[[str, list[Path]], None]


@pytest.fixture(autouse=True, scope="module")
def tfds() -> ModuleType:
    """Imported here: other processes that only collect these tests would take seconds for it."""
    return pytest.importorskip("tensorflow_datasets")


def as_set(pixels: list[np.ndarray], labels: list[int] | None = None) -> list[tuple[bytes, int]]:
    """Returns images and labels sorted, as TFDS stores them in an order of its own."""
    return sorted(
        (image.tobytes(), -2 if labels is None else int(labels[index]))
        for index, image in enumerate(pixels)
    )


def read(images: Images) -> list[np.ndarray]:
    return [images[index] for index in range(len(images))]


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)


class TestStl10:
    def test_archive_gives_the_photos(
        self, tmp_path, stl10_archive, record_archive: Record, monkeypatch
    ):
        no_network(monkeypatch)
        record_archive("stl10", [stl10_archive.path])
        root, archive = str(tmp_path), str(stl10_archive.path)
        plan = plan_source("stl10", root=root, archive=archive)
        assert plan.counts == {
            "pretrain": 100_000,
            "train": 5_000,
            "test": 8_000,
        }  # the published ones, as nothing is prepared yet
        assert not files_below(tmp_path)

        source = open_source("stl10", root=root, archive=archive)
        assert source.class_names == tuple(stl10_archive.class_names)
        assert source.pretrain.labels is None
        assert isinstance(source.pretrain, ArrayImages)
        assert as_set(read(source.pretrain)) == as_set(stl10_archive.pixels["unlabelled"])
        for split, images in (("train", source.train), ("test", source.test)):
            assert as_set(read(images), images.labels) == as_set(
                stl10_archive.pixels[split], stl10_archive.labels[split]
            )

        plan = plan_source("stl10", root=root)
        assert plan.counts == {"pretrain": 30, "train": 20, "test": 10}
        assert (plan.classes, plan.image_shape, plan.in_memory, plan.bytes_in_memory) == (
            10,
            (96, 96, 3),
            True,
            60 * 96 * 96 * 3,
        )
        assert not list((tmp_path / "downloads").glob("unpacked-*")), (
            "what TFDS unpacked stays on the disk"
        )

        (labels,) = tmp_path.rglob("train.labels")
        labels.write_bytes(labels.read_bytes()[:-1] + b"\1")  # damage: they are read again
        again = open_source("stl10", root=root, cache="none")
        assert not isinstance(again.train, ArrayImages)
        assert again.fingerprint == source.fingerprint
        np.testing.assert_array_equal(again.train.labels, source.train.labels)
        np.testing.assert_array_equal(
            again.pretrain.batch(np.array([4, 2])), source.pretrain.batch(np.array([4, 2]))
        )

        both = open_source("stl10", root=root, pretrain="train+unlabelled")
        assert both.pretrain.labels is None
        assert as_set(read(both.pretrain)) == as_set(
            stl10_archive.pixels["unlabelled"] + stl10_archive.pixels["train"]
        )

    def test_renamed_archive_and_tfrecords_give_the_same_photos(
        self, tfds, tmp_path, stl10_archive, record_archive: Record, monkeypatch
    ):
        no_network(monkeypatch)
        renamed = tmp_path / "stl10_binary (1).tar.gz"
        renamed.write_bytes(stl10_archive.path.read_bytes())
        record_archive("stl10", [stl10_archive.path])
        array_record = open_source(
            "stl10", root=str(tmp_path / "a"), archive=str(renamed), cache="none"
        )

        builder = tfds.builder("stl10", data_dir=tmp_path / "b", file_format="tfrecord")
        config = tfds.download.DownloadConfig(
            manual_dir=stl10_archive.path.parent, try_download_gcs=False, num_shards=3
        )
        builder.download_and_prepare(download_config=config)
        tfrecord = open_source("stl10", root=str(tmp_path / "b"), cache="none")
        assert "tfrecord" in tfrecord.notes[0]
        assert "array_record" in array_record.notes[0]
        np.testing.assert_array_equal(tfrecord.train.labels, array_record.train.labels)
        for index in range(30):
            np.testing.assert_array_equal(tfrecord.pretrain[index], array_record.pretrain[index])

        order = np.random.default_rng(0).integers(0, 30, 600)
        for source in (array_record, tfrecord):
            with ThreadPoolExecutor(8) as pool:
                sums = list(
                    pool.map(lambda index, images=source.pretrain: int(images[index].sum()), order)
                )
            assert sums == [int(source.pretrain[index].sum()) for index in order]

        shard = next((tmp_path / "b" / "stl10" / "1.0.0").glob("*train*00001-of*"))
        shard.write_bytes(shard.read_bytes()[:-40])
        with pytest.raises(SourceError, match="truncated"):
            open_source("stl10", root=str(tmp_path / "b"))

    def test_incomplete_archive_is_rejected(self, tmp_path, stl10_archive, record_archive: Record):
        cut = tmp_path / "stl10_binary.tar.gz"
        data = stl10_archive.path.read_bytes()
        cut.write_bytes(data[:-1000])
        record_archive("stl10", [stl10_archive.path])
        with pytest.raises(
            SourceError,
            match=rf"{cut} is incomplete: it has {len(data) - 1000:,} bytes, stl10_binary.tar.gz has {len(data):,}",
        ):
            plan_source("stl10", root=str(tmp_path / "root"), archive=str(cut))
        cut.write_bytes(data[:-1000] + bytes(1000))
        with pytest.raises(SourceError, match=f"{cut} is no complete tar archive"):
            open_source("stl10", root=str(tmp_path / "root"), archive=str(cut))
        cut.write_bytes(
            data[:4] + bytes(4) + data[8:]
        )  # gzip's time: the same content, another file
        with pytest.raises(
            SourceError, match="not the file that was published: its checksum differs"
        ):
            open_source("stl10", root=str(tmp_path / "root"), archive=str(tmp_path))

    def test_missing_data_without_network_is_explained(self, tmp_path, monkeypatch):
        no_network(monkeypatch)
        plan = plan_source("stl10", root=str(tmp_path))
        assert (
            "would download http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz (2.64 GB)"
            in plan.notes[0]
        )
        with pytest.raises(SourceError) as caught:
            open_source("stl10", root=str(tmp_path))
        text = str(caught.value)
        for part in (
            str(tmp_path),
            "stl10_binary.tar.gz",
            "http://ai.stanford.edu",
            "data.archive",
            "python -m byol_tf.train",
        ):
            assert part in text
        assert not files_below(tmp_path)

    def test_missing_archive_is_rejected(self, tmp_path):
        with pytest.raises(SourceError, match=r"data.archive: .* has no stl10_binary.tar.gz"):
            plan_source("stl10", root=str(tmp_path), archive=str(tmp_path))


class TestCifar10:
    def test_archive_gives_the_photos(
        self, tmp_path, cifar10_archive, record_archive: Record, monkeypatch
    ):
        no_network(monkeypatch)
        record_archive("cifar10", [cifar10_archive.path])
        source = open_source("cifar10", root=str(tmp_path), archive=str(cifar10_archive.path))
        assert source.class_names == tuple(cifar10_archive.class_names)
        for split, images in (("train", source.train), ("test", source.test)):
            assert as_set(read(images), images.labels) == as_set(
                cifar10_archive.pixels[split], cifar10_archive.labels[split]
            )
        assert source.pretrain.labels is None
        assert as_set(read(source.pretrain)) == as_set(cifar10_archive.pixels["train"])

        fewer = open_source("cifar10", root=str(tmp_path), pretrain_images=7, seed=3)
        plan = plan_source("cifar10", root=str(tmp_path), pretrain_images=7, seed=3)
        assert plan.counts == {"pretrain": 7, "train": 50, "test": 10}
        assert (len(fewer.pretrain), len(fewer.train), len(fewer.test)) == (7, 50, 10)

    def test_cifar10_has_no_unlabelled_photos(self, tmp_path):
        with pytest.raises(
            SourceError, match=r'data.pretrain: expected "train", .*; received "unlabelled"'
        ):
            open_source("cifar10", root=str(tmp_path), pretrain="unlabelled")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_files_of_tfds_are_shards(
    tfds, tmp_path, stl10_archive, record_archive: Record, monkeypatch, file_format
):
    """The way that is recommended for data sets behind a URL."""
    no_network(monkeypatch)
    record_archive("stl10", [stl10_archive.path])
    builder = tfds.builder("stl10", data_dir=tmp_path, file_format=file_format)
    config = tfds.download.DownloadConfig(
        manual_dir=stl10_archive.path.parent, try_download_gcs=False, num_shards=3
    )
    builder.download_and_prepare(download_config=config)
    source = open_source("stl10", root=str(tmp_path))
    shards = open_source("shards", root=str(builder.data_dir))
    assert as_set(read(shards.pretrain)) == as_set(read(source.pretrain))
    for split in ("train", "test"):
        ours, theirs = getattr(shards, split), getattr(source, split)
        names = [source.class_names[label] for label in theirs.labels]
        labels = [builder.info.features["label"].str2int(name) for name in names]
        assert as_set(read(theirs), labels) == as_set(
            read(ours), [int(shards.class_names[label]) for label in ours.labels]
        )


class TestImagenet:
    def test_tars_give_the_photos(self, tfds, tmp_path, imagenet_archives, record_archive: Record):
        folder = imagenet_archives.path
        record_archive("imagenet2012", sorted(folder.iterdir()))
        source = open_source("imagenet", root=str(tmp_path), archive=str(folder), cache="none")
        wnids = [source.class_names[label] for label in source.train.labels]
        assert sorted(set(wnids)) == imagenet_archives.class_names
        assert len(source.class_names) == 1_000
        assert as_set(read(source.train)) == as_set(imagenet_archives.pixels["train"])
        assert as_set(read(source.test)) == as_set(imagenet_archives.pixels["test"])
        by_pixels = {
            image.tobytes(): number // 3
            for number, image in enumerate(imagenet_archives.pixels["train"])
        }
        assert [
            imagenet_archives.class_names[by_pixels[image.tobytes()]]
            for image in read(source.train)
        ] == wnids
        published = (
            (tfds.core.tfds_path() / "datasets/imagenet2012/validation_labels.txt")
            .read_text()
            .split()
        )
        assert sorted(source.class_names[label] for label in source.test.labels) == sorted(
            published[:12]
        )
        assert source.train.shape is None
        for index, image in enumerate(
            read(source.pretrain)
        ):  # photos in colour or grey: parts of each can be decoded
            np.testing.assert_array_equal(
                tf.io.decode_jpeg(source.pretrain.encoded(index), 3, dct_method="INTEGER_ACCURATE"),
                image,
            )

        plan = plan_source("imagenet", root=str(tmp_path), image_size=64)
        assert (plan.counts, plan.image_shape) == (
            {"pretrain": 30, "train": 30, "test": 12},
            (64, 64, 3),
        )
        cached = open_source("imagenet", root=str(tmp_path), image_size=64)
        assert isinstance(cached.train, ArrayImages)
        np.testing.assert_array_equal(cached.train.labels, source.train.labels)

    def test_missing_imagenet_tars_are_explained(self, tmp_path):
        plan = plan_source("imagenet", root=str(tmp_path))
        with pytest.raises(SourceError) as caught:
            open_source("imagenet", root=str(tmp_path))
        text = str(caught.value)
        assert plan.counts == {"pretrain": 1_281_167, "train": 1_281_167, "test": 50_000}
        assert any(text in note for note in plan.notes)
        for part in (
            str(tmp_path),
            "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar",
            "https://image-net.org",
            "data.archive",
        ):
            assert part in text
        with pytest.raises(SourceError, match="the folder with ILSVRC2012_img_train"):
            plan_source("imagenet", root=str(tmp_path), archive=str(tmp_path))


def test_tfds_import_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.core.download.download_manager", None)
    for module in ("pipelines.compat", "pipelines.sources.tfds.prepare"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(SourceError, match=r"pip install 'tensorflow-metadata<1\.18'"):
        importlib.import_module("pipelines.sources.tfds.prepare")
