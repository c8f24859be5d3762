"""The folder of docs/results is made from an archive of fastai's layout."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.make_imagenette import CLASSES, SIDE, make
from pipelines.sources import open_source


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive as fastai's, of five photos a class to train on and three to validate on."""
    path = tmp_path_factory.mktemp("archive") / "imagenette2-160.tgz"
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w:gz") as tar:
        for wnid in CLASSES:
            for part, count in (("train", 5), ("val", 3)):
                for number in range(count):
                    file = io.BytesIO()
                    pixels = rng.integers(0, 256, (160, 213, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(file, "JPEG")
                    member = tarfile.TarInfo(f"imagenette2-160/{part}/{wnid}/{wnid}_{number}.JPEG")
                    member.size = file.tell()
                    file.seek(0)
                    tar.addfile(member, file)
        noise = tarfile.TarInfo("imagenette2-160/noisy_imagenette.csv")
        tar.addfile(noise, io.BytesIO())
    return path


def test_the_splits_are_disjoint_and_as_large_as_said(archive, tmp_path):
    make(archive, tmp_path / "imagenette", unlabelled=25, train=2, test=3)
    source = open_source(source="folder", root=str(tmp_path / "imagenette"))
    assert (len(source.pretrain), len(source.train), len(source.test)) == (25, 20, 30)
    assert set(source.class_names) == set(CLASSES.values())
    assert source.pretrain[0].shape == (SIDE, SIDE, 3)
    files = [path for path in (tmp_path / "imagenette").rglob("*.JPEG") if "test" not in path.parts]
    assert len({path.name for path in files}) == len(files) == 45


def test_the_same_archive_gives_the_same_photos(archive, tmp_path):
    for name in ("first", "second"):
        make(archive, tmp_path / name, unlabelled=25, train=2, test=3)
    listed = [
        sorted(str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*.*"))
        for name in ("first", "second")
    ]
    assert listed[0] == listed[1] != []


def test_too_small_an_archive_names_what_is_missing(archive, tmp_path):
    with pytest.raises(SystemExit, match="val/n01440764: expected 4 photos or more; found 3"):
        make(archive, tmp_path / "imagenette", unlabelled=25, train=2, test=4)
