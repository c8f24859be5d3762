"""Servers of shards, and small archives in the originals' layouts, made of the shared photos, for
TFDS's own builders."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import remote
from pipelines.sources.shards import index as shard_index
from tests.helpers.shard_files import Server, serving, write_shards


@dataclass(frozen=True)
class Packed:
    """An archive and its content: for each split the pixels, or the files, and the labels."""

    path: Path
    pixels: dict[str, list[np.ndarray]]
    labels: dict[str, list[int]]
    class_names: list[str]


@pytest.fixture
def fresh_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is a new process, as far as servers go, and waits less."""
    shard_index._known.clear()
    remote._given_up.clear()
    remote._reported.clear()
    monkeypatch.setattr(remote, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(remote, "_LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(remote, "GIVE_UP_SECONDS", 1.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server of `write_shards`, whose files are in `tmp_path / "www"`."""
    write_shards(tmp_path / "www")
    with serving(tmp_path / "www") as server:
        yield server


@pytest.fixture(scope="session")
def imagenette(photos: Path) -> Path:
    """The shared photos of 224 x 224 pixels."""
    return photos / "imagenette_stl10like"


@pytest.fixture
def record_archive(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[Path]], None]:
    """Returns a function that makes TFDS accept small archives in place of the published ones.

    Their sizes and checksums replace those that TFDS records.
    """
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.core.download import checksums

    def record(name: str, archives: list[Path]) -> None:
        builder = tfds.builder_cls(name)
        by_name = {path.name: path for path in archives}
        infos = {
            url: checksums.compute_url_info(by_name[os.path.basename(url)])
            for url in builder.url_infos
            if os.path.basename(url) in by_name
        }
        assert len(infos) == len(archives)
        monkeypatch.setattr(builder, "url_infos", infos)

    return record


@pytest.fixture(scope="session")
def stl10_archive(imagenette: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """`stl10_binary.tar.gz`: column-major planes, labels 1..10; 60 images."""
    names = class_names(imagenette)
    files = {"unlabelled": sorted((imagenette / "unlabeled").iterdir())[:30]}
    for split, number in (("train", 2), ("test", 1)):
        files[split] = [
            path
            for name in names
            for path in sorted((imagenette / split / name).iterdir())[:number]
        ]
    pixels = {split: [crop(path, 96) for path in paths] for split, paths in files.items()}
    labels = {
        split: [names.index(path.parent.name) for path in files[split]]
        for split in ("train", "test")
    }
    members = {
        "class_names.txt": "".join(name + "\n" for name in names).encode(),
        "fold_indices.txt": b"0 1 2\n",
    }
    for split, published in (("unlabelled", "unlabeled"), ("train", "train"), ("test", "test")):
        planes = np.stack(pixels[split]).transpose(
            0, 3, 2, 1
        )  # as the STL-10 page says: channels, then columns, then rows
        members[f"{published}_X.bin"] = planes.tobytes()
        if split in labels:
            members[f"{published}_y.bin"] = bytes(label + 1 for label in labels[split])
    path = tmp_path_factory.mktemp("stl10") / "stl10_binary.tar.gz"
    pack(path, {f"stl10_binary/{name}": data for name, data in members.items()}, "w:gz")
    return Packed(path, pixels, labels, names)


@pytest.fixture(scope="session")
def cifar10_archive(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """`cifar-10-binary.tar.gz`: label byte, then planes; 5 train batches and a test batch of 10."""
    root = photos / "cifar10"
    names = class_names(root)
    pixels: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    labels: dict[str, list[int]] = {"train": [], "test": []}
    members = {"batches.meta.txt": "".join(name + "\n" for name in names).encode() + b"\n"}
    for batch in range(6):
        split = "train" if batch < 5 else "test"
        data = b""
        for label, name in enumerate(names):
            image = crop(sorted((root / split / name).iterdir())[batch], 32)
            pixels[split].append(image)
            labels[split].append(label)
            data += bytes([label]) + image.transpose(2, 0, 1).tobytes()
        members["test_batch.bin" if split == "test" else f"data_batch_{batch + 1}.bin"] = data
    path = tmp_path_factory.mktemp("cifar10") / "cifar-10-binary.tar.gz"
    pack(path, {f"cifar-10-batches-bin/{name}": data for name, data in members.items()}, "w:gz")
    return Packed(path, pixels, labels, names)


@pytest.fixture(scope="session")
def imagenet_archives(imagenette: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The folder with ImageNet's tars: 3 train photos per class and wnid tar, 12 validation photos.

    `pixels` are those of the JPEGs.
    """
    wnids = dict(
        line.split("\t")
        for line in (imagenette / "class_names.txt").read_text().splitlines()
        if "\t" in line
    )
    folder = tmp_path_factory.mktemp("imagenet")
    pixels: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    tars = {}
    for name, wnid in sorted(wnids.items(), key=lambda pair: pair[1]):
        photos = sorted((imagenette / "train" / name).iterdir())[:3]
        members = {f"{wnid}_{number}.JPEG": path.read_bytes() for number, path in enumerate(photos)}
        pixels["train"] += [rgb(path) for path in photos]
        tars[f"{wnid}.tar"] = packed(members)
    pack(folder / "ILSVRC2012_img_train.tar", tars, "w")
    validation = sorted((imagenette / "test").glob("*/*"))[:12]
    pixels["test"] = [rgb(path) for path in validation]
    pack(
        folder / "ILSVRC2012_img_val.tar",
        {
            f"ILSVRC2012_val_{n + 1:08d}.JPEG": path.read_bytes()
            for n, path in enumerate(validation)
        },
        "w",
    )
    return Packed(folder, pixels, {}, sorted(wnids.values()))


def class_names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "train").iterdir())


def rgb(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def crop(path: Path, size: int) -> np.ndarray:
    return np.ascontiguousarray(rgb(path)[:size, :size])


def pack(path: Path, members: dict[str, bytes], mode: str) -> None:
    with tarfile.open(path, mode) as tar:
        _add(tar, members)


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, members)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, members: dict[str, bytes]) -> None:
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
