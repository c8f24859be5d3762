"""Scan cache: a later start gives the same source without reading known photos."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import Source, open_source

PNGS = 12


@dataclass
class Openings:
    """Names of the files below a folder that this process opens while `below` is set."""

    below: str = ""
    names: list[str] = field(default_factory=list)


_OPENINGS = Openings()


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and _OPENINGS.below and str(arguments[0]).startswith(_OPENINGS.below):
        _OPENINGS.names.append(os.path.relpath(str(arguments[0]), _OPENINGS.below))


@pytest.fixture(scope="module", autouse=True)
def _watch():
    sys.addaudithook(_note)  # there is no taking it back; without a folder it does nothing
    yield
    _OPENINGS.below = ""


@pytest.fixture
def root(tmp_path) -> Path:
    """Photos of many sizes, one of them rotated, two exact copies, a broken one; and `runs/`."""
    folder = tmp_path / "photos"
    (tmp_path / "runs").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(PNGS // 2):
            Image.fromarray(rng.integers(0, 256, (9 + number, 8, 3), np.uint8)).save(
                folder / name / f"{number}.png"
            )
    (folder / "b" / "copy.png").write_bytes((folder / "a" / "0.png").read_bytes())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(rng.integers(0, 256, (30, 20, 3), np.uint8)).save(
        folder / "a" / "turned.jpg", exif=exif
    )
    (folder / "a" / "broken.png").write_bytes(b"no")
    return folder


def opened(root: Path, kept: bool = True, **options) -> tuple[Source, list[str]]:
    """Returns the source, its scan saved, and the photos that were opened."""
    scans = str(root.parent / "runs") if kept else None
    _OPENINGS.below, _OPENINGS.names = str(root), []
    source = open_source(
        "folder", root=str(root), max_unreadable_fraction=0.2, scan_folder=scans, **options
    )
    _OPENINGS.below = ""
    source.save_scan()
    return source, sorted(set(_OPENINGS.names))


def same(first: Source, second: Source) -> None:
    for name in ("notes", "skipped", "fingerprint", "class_names"):
        assert getattr(first, name) == getattr(second, name)
    for one, other in (
        (first.pretrain, second.pretrain),
        (first.train, second.train),
        (first.test, second.test),
    ):
        assert (len(one), one.shape) == (len(other), other.shape)
        for index, image in enumerate(one):
            np.testing.assert_array_equal(image, other[index])


@pytest.mark.parametrize("options", [{}, {"image_size": 8, "cache": "none"}, {"pretrain": "train"}])
def test_second_start_opens_no_unchanged_photo(root, options):
    without, all_of_them = opened(root, kept=False, **options)
    assert len(all_of_them) == PNGS + 3
    assert list((root.parent / "runs").iterdir()) == []
    first, names = opened(root, **options)
    assert names == all_of_them
    second, names = opened(root, **options)
    assert names == ["a/broken.png"]  # what couldn't be read is tried again
    same(first, without)
    same(second, without)


def test_changed_photo_is_read_again(root):
    opened(root)
    photo, copy = root / "a" / "3.png", root / "b" / "2.png"
    before = photo.stat()
    data = photo.read_bytes()
    photo.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])  # as many bytes
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    copy.write_bytes((root / "a" / "1.png").read_bytes())
    Image.new("RGB", (8, 8)).save(root / "a" / "new.png")
    changed, names = opened(root)
    assert (
        {"a/3.png", "a/new.png", "b/2.png"}
        <= set(names)
        <= {"a/3.png", "a/new.png", "b/2.png", "a/broken.png"}
    )
    assert {path for path, _ in changed.skipped} == {"a/broken.png", "a/3.png"}
    same(changed, opened(root, kept=False)[0])
    assert opened(root)[1] == ["a/3.png", "a/broken.png"]


@pytest.mark.parametrize(
    "wrong", ["cut", "flipped", "empty", "another Pillow", "a folder", "of another folder"]
)
def test_damaged_or_outdated_cache_is_ignored(root, wrong, monkeypatch):
    without, all_of_them = opened(root)
    (file,) = (root.parent / "runs").iterdir()
    data = file.read_bytes()
    if wrong == "another Pillow":
        monkeypatch.setattr("pipelines.sources.cache_file.pillow_version", "1.0")
    elif wrong == "a folder":
        file.unlink()
        file.mkdir()
    elif wrong == "of another folder":
        root = root.rename(root.with_name("moved"))
    else:
        file.write_bytes(
            {
                "cut": data[:-40],
                "flipped": data[:200] + bytes([data[200] ^ 1]) + data[201:],
                "empty": b"",
            }[wrong]
        )
    again, names = opened(root)
    assert names == all_of_them
    if wrong != "of another folder":  # its notes name another folder
        same(again, without)
    assert (opened(root)[1] == ["a/broken.png"]) == (wrong != "a folder")


def test_photo_of_same_size_and_time_counts_as_unchanged(root):
    """The control: only the time tells apart photos of equal size."""
    opened(root)
    photo = root / "a" / "3.png"
    before = photo.stat()
    photo.write_bytes(bytes(before.st_size))
    os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(root)[1] == ["a/broken.png"]
