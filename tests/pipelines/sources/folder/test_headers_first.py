"""Folders opened by headers: nothing is decoded before its first use, and nothing else changes."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import PhotoManifest, Source, SourceError, open_source

OPTIONS = [
    {"cache": "none"},
    {"cache": "auto"},
    {"cache": "none", "image_size": 8},
    {"cache": "memory", "image_size": 8},
]


@pytest.fixture
def root(tmp_path) -> Path:
    """Two classes of 12 photos; one file is no photo, and two have a whole header only."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 128, (40, 30, 3), np.uint8)
            pixels[..., 0] = 40 * label  # tells the class
            suffix = "jpg" if number % 2 else "png"
            Image.fromarray(pixels).save(
                tmp_path / "train" / name / f"{number:02d}.{suffix}", quality=95
            )
    (tmp_path / "train" / "cat" / "05.jpg").write_bytes(b"<html>")
    for cut in ("cat/07.jpg", "dog/04.png"):
        path = tmp_path / "train" / cut
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return tmp_path


def opened(root: Path, lost: list[str], **options) -> Source:
    return open_source(
        "folder",
        root=str(root),
        pretrain="train",
        on_lost=lambda path, reason: lost.append(path),
        **{"check": "headers", "max_unreadable_fraction": 0.3} | options,
    )


def pixels_of(images) -> list[np.ndarray]:
    return [images[index].copy() for index in range(len(images))]


@pytest.mark.parametrize("options", OPTIONS)
def test_whole_photos_give_the_same_source_whatever_is_checked(root, options):
    for bad in ("cat/05.jpg", "cat/07.jpg", "dog/04.png"):
        (root / "train" / bad).unlink()
    by_header = opened(root, [], **options)
    checked = open_source("folder", root=str(root), pretrain="train", **options)
    notes = [note for note in checked.notes if "exact copies" not in note]
    assert [*by_header.notes, *by_header.find_copies()] == notes
    for first, second in ((by_header.pretrain, checked.pretrain), (by_header.test, checked.test)):
        assert first.shape == second.shape
        for one, other in zip(pixels_of(first), pixels_of(second), strict=True):
            np.testing.assert_array_equal(one, other)
        if first.shape is not None:
            rows = np.array([3, 0, 3])
            np.testing.assert_array_equal(first.batch(rows), second.batch(rows))
    assert by_header.manifest == checked.manifest


@pytest.mark.parametrize("options", OPTIONS)
def test_nothing_is_decoded_before_its_first_use(root, options, monkeypatch):
    monkeypatch.setattr(
        "pipelines.sources.folder.reader.PhotoReader.read", lambda self, path: pytest.fail(path)
    )
    source = opened(root, [], **options)
    assert dict(source.skipped).keys() == {"train/cat/05.jpg"}
    assert len(source.train) + len(source.test) == 23
    assert source.train.shape == ((8, 8, 3) if "image_size" in options else (40, 30, 3))


@pytest.mark.parametrize("options", OPTIONS)
def test_unreadable_pixels_are_replaced_and_listed_as_they_come(root, options):
    lost: list[str] = []
    source = opened(root, lost, **options)
    assert lost == []
    train, test = pixels_of(source.train), pixels_of(source.test)
    assert sorted(lost) == ["train/cat/07.jpg", "train/dog/04.png"]
    # Good and bad are all that is listed.
    good = {image.tobytes() for image in [*train, *test]}
    assert len(good) + len(lost) + len(source.skipped) == 24
    for images, labels in ((train, source.train.labels), (test, source.test.labels)):
        assert [int(image[..., 0].mean() > 20) for image in images] == labels.tolist()
    assert source.failure() is None
    # The same photos take their places in any order, and when the run is resumed.
    manifest = PhotoManifest.from_bytes(source.manifest.to_bytes())
    for again in (opened(root, [], **options), opened(root, [], manifest=manifest, **options)):
        for index in reversed(range(len(train))):
            np.testing.assert_array_equal(again.train[index], train[index])


def test_too_many_unreadable_pixels_are_an_error(root):
    source = opened(root, [], cache="none", max_unreadable_fraction=0.05)  # one file; it is used up
    with pytest.raises(
        SourceError, match=r"1 photos? can't be read that passed the check.*For example train/"
    ):
        pixels_of(source.train) + pixels_of(source.test)
    assert source.failure() is not None


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("check", ["pixels", "headers"])
def test_a_split_without_a_readable_photo_is_named(root, check, options):
    for name in ("cat", "dog"):
        (root / "test" / name).mkdir(parents=True)
        (root / "test" / name / "0.jpg").write_bytes(b"<html>")
    with pytest.raises(SourceError, match="folder: not one image of test can be read"):
        opened(root, [], check=check, max_unreadable_fraction=0.5, **options)


def test_copies_are_searched_for_on_request(root):
    cat = root / "train" / "cat"
    (cat / "copy.png").write_bytes((cat / "00.png").read_bytes())
    source = opened(root, [], cache="none")
    assert not any("exact copies" in note for note in source.notes)
    assert source.find_copies()[0] == "1 file(s) are exact copies of others"


def test_photos_of_any_length_are_not_compared(root):
    for name in ("cat", "dog"):
        for number in range(2):
            long = root / "train" / name / f"long {number}.png"
            shutil.copy(root / "train" / "cat" / "00.png", long)
            os.truncate(long, 10**13)
    (root / "train" / "cat" / "no photo.png").touch()
    os.truncate(root / "train" / "cat" / "no photo.png", 10**13)
    source = opened(root, [], cache="none", max_unreadable_fraction=0.5)
    assert source.find_copies() == ()


def test_a_cut_jpeg_is_not_decoded_in_part(root):
    """Its upper half would be used in some epochs, and the photo be replaced in others."""
    source = opened(root, [], cache="none")
    whole = [source.train.encoded(index) for index in range(len(source.train))]
    for data in filter(None, whole):
        Image.open(io.BytesIO(data)).load()  # raises OSError for one that was cut
    assert sum(data is not None for data in whole) >= 6


def test_lost_photos_need_somebody_who_is_told(root):
    with pytest.raises(SourceError, match='check: "headers" leaves photos to be lost later'):
        open_source("folder", root=str(root), check="headers")
    with pytest.raises(SourceError, match='check: expected "pixels" or "headers"'):
        open_source("folder", root=str(root), check="names")
