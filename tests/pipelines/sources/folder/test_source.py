"""Folders of photos: layouts, unreadable files, sizes and memory, notes."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from pipelines.sources import ArrayImages, SourceError, open_source, own_photos, plan_source
from pipelines.sources.folder.layout import TEST_FRACTION


def photo(
    path: Path, seed: int | None = None, size: tuple[int, int] = (12, 10), **options: object
) -> None:
    """Writes a photo whose pixels are a function of its name (or of the seed)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed if seed is not None else list(os.fsencode(path.name)))
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, **options)


def tree(root: Path, counts: dict[str, int], **options: object) -> Path:
    for folder, count in counts.items():
        for number in range(count):
            photo(root / folder / f"{folder.replace('/', '_')}_{number}.png", **options)
    return root


def digest(root: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def counts(root: Path, **options: object) -> tuple[int, int, int]:
    """Opens a folder, compares it with its plan, and returns the number of images by split."""
    plan = plan_source("folder", root=str(root), **options)
    source = open_source("folder", root=str(root), **options)
    sizes = (len(source.pretrain), len(source.train or ()), len(source.test or ()))
    assert sizes == (plan.counts["pretrain"], plan.counts["train"], plan.counts["test"])
    assert plan.classes == len(source.class_names)
    assert plan.in_memory == isinstance(source.test or source.pretrain, ArrayImages)
    assert source.pretrain.labels is None
    return sizes


SPLITS = {"train/cat": 3, "train/dog": 4, "test/cat": 2, "test/dog": 2}


class TestLayouts:
    @pytest.mark.parametrize("name", ["unlabeled", "unlabelled", "Unlabeled"])
    def test_unlabelled_train_test(self, tmp_path, name):
        root = tree(tmp_path, {f"{name}/2021/may": 4, name: 2, **SPLITS})
        assert counts(root) == (6, 7, 4)
        assert counts(root, pretrain="train") == (7, 7, 4)
        assert counts(root, pretrain="train+unlabelled") == (13, 7, 4)
        source = open_source("folder", root=str(root))
        assert source.class_names == ("cat", "dog")
        np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 1, 1, 1, 1])
        np.testing.assert_array_equal(source.test.labels, [0, 0, 1, 1])

    def test_pixels_belong_to_their_class(self, tmp_path):
        root = tree(tmp_path, SPLITS)
        source = open_source("folder", root=str(root))
        for images, split in ((source.train, "train"), (source.test, "test")):
            paths = [
                path
                for name in source.class_names
                for path in sorted((root / split / name).iterdir())
            ]
            for index, path in enumerate(paths):
                np.testing.assert_array_equal(images[index], np.asarray(Image.open(path)))
                assert source.class_names[images.labels[index]] == path.parent.name

    def test_val_is_the_test_set_without_test(self, tmp_path):
        root = tree(tmp_path, {"train/cat": 3, "train/dog": 3, "val/cat": 1, "val/dog": 1})
        assert counts(root) == (6, 6, 2)
        tree(tmp_path, {"test/cat": 2, "test/dog": 2})
        assert counts(root) == (6, 6, 4)
        assert any(
            "val/ is skipped" in note for note in plan_source("folder", root=str(root)).notes
        )

    def test_train_without_test_is_divided(self, tmp_path):
        root = tree(tmp_path, {"train/cat": 10, "train/dog": 20})
        assert counts(root) == (24, 24, 6)
        source = open_source("folder", root=str(root), seed=1)
        np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 4])
        assert any("there is no test/" in note for note in source.notes)
        pixels = {image.tobytes() for image in source.train} | {
            image.tobytes() for image in source.test
        }
        assert len(pixels) == 30, "a photo is in both"
        again, other = (open_source("folder", root=str(root), seed=seed) for seed in (1, 2))
        np.testing.assert_array_equal(
            again.test.batch(np.arange(6)), source.test.batch(np.arange(6))
        )
        assert not np.array_equal(other.test.batch(np.arange(6)), source.test.batch(np.arange(6)))

    def test_class_folders_alone(self, tmp_path):
        root = tree(tmp_path, {"cat": 10, "dog": 5, "emu": 5})
        assert counts(root) == (20, 16, 4)
        assert counts(root, pretrain="train") == (16, 16, 4)
        source = open_source("folder", root=str(root))
        assert source.class_names == ("cat", "dog", "emu")
        np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 1, 1])
        assert any(f"{TEST_FRACTION:.0%} of each" in note for note in source.notes)
        assert len({image.tobytes() for image in source.pretrain}) == 20

    def test_classes_of_one_photo_have_no_probe(self, tmp_path):
        assert counts(tree(tmp_path, {"cat": 1, "dog": 1, "emu": 1})) == (3, 0, 0)

    @pytest.mark.parametrize(
        "layout", [{"": 5}, {"DCIM/100": 3, "DCIM/101": 2}, {"": 2, "a": 2, "b": 1}]
    )
    def test_flat_or_mixed_folder_is_unlabelled(self, tmp_path, layout):
        root = tree(tmp_path, layout)
        assert counts(root) == (5, 0, 0)
        source = open_source("folder", root=str(root))
        assert (source.train, source.test, source.class_names) == (None, None, ())
        with pytest.raises(
            SourceError, match=r'data.pretrain: expected "unlabelled", .*; received "train"'
        ):
            plan_source("folder", root=str(root), pretrain="train")

    def test_flat_train_is_unlabelled(self, tmp_path):
        assert counts(tree(tmp_path, {"train": 4})) == (4, 0, 0)

    def test_pretrain_images(self, tmp_path):
        root = tree(tmp_path, {"unlabelled": 30, **SPLITS})
        assert counts(root, pretrain_images=8) == (8, 7, 4)
        assert counts(root, pretrain_images=8, pretrain="train+unlabelled", cache="none") == (
            8,
            7,
            4,
        )
        few, more, other = (
            open_source("folder", root=str(root), pretrain_images=n, seed=s).pretrain
            for n, s in ((8, 0), (12, 0), (8, 1))
        )
        few, more, other = ({image.tobytes() for image in images} for images in (few, more, other))
        assert few < more
        assert few != other
        assert any(
            "asks for 1,000; there are 30" in note
            for note in plan_source("folder", root=str(root), pretrain_images=1_000).notes
        )

    def test_hidden_and_other_files(self, tmp_path):
        root = tree(tmp_path, {"": 3, ".git": 2, "a/.thumbnails": 2})
        for name in (".DS_Store", ".hidden.png", "notes.txt", "video.mp4", "a.cr2", "README"):
            (root / name).write_bytes(b"x")
        photo(root / "UPPER.PNG")
        assert counts(root) == (4, 0, 0)
        notes = " ".join(plan_source("folder", root=str(root)).notes)
        for part in ("4 files", ".txt", ".mp4", ".cr2", "without suffix"):
            assert part in notes.replace("file(s)", "files")

    def test_links(self, tmp_path):
        root = tree(tmp_path / "root", {"unlabelled": 3})
        elsewhere = tree(tmp_path / "elsewhere", {"more": 2})
        (root / "unlabelled" / "loop").symlink_to(root, target_is_directory=True)
        (root / "unlabelled" / "more").symlink_to(elsewhere, target_is_directory=True)
        (root / "unlabelled" / "one.png").symlink_to(elsewhere / "more" / "more_0.png")
        assert counts(root) == (6, 0, 0)

    def test_unusual_file_names_are_read(self, tmp_path):
        root = tmp_path
        for name in ("with space.png", "näme.png", "名前.png", "quo'te\".png", "new\nline.png"):
            photo(root / name)
        strange = os.fsdecode(b"latin\xe9.png")
        shutil.copy(root / "näme.png", root / strange)
        (root / os.fsdecode(b"broken\xe9.png")).write_bytes(b"no")
        source = open_source("folder", root=str(root), max_unreadable_fraction=0.5)
        assert len(source.pretrain) == 6
        assert source.skipped == ((r"broken\xe9.png", "not an image of a supported format"),)


class TestWrongLayouts:
    def test_missing_folder_is_rejected(self, tmp_path):
        (tmp_path / "photos").mkdir()
        with pytest.raises(
            SourceError,
            match=rf"data.root: there is no folder {tmp_path}/photo; did you mean {tmp_path}/photos\?",
        ):
            plan_source("folder", root=str(tmp_path / "photo"))
        with pytest.raises(SourceError, match=r"data.root is missing"):
            plan_source("folder")

    def test_file_as_root_is_rejected(self, tmp_path):
        photo(tmp_path / "a.png")
        with pytest.raises(
            SourceError,
            match=r"is a file; a folder of photos, or a list of them \(.txt, .csv, .tsv\), is needed",
        ):
            plan_source("folder", root=str(tmp_path / "a.png"))

    def test_folder_without_photos_is_rejected(self, tmp_path):
        (tmp_path / "a.cr2").write_bytes(b"x")
        with pytest.raises(SourceError, match=r"holds no photos .*1 \.cr2"):
            plan_source("folder", root=str(tmp_path))

    def test_one_photo_is_rejected(self, tmp_path):
        with pytest.raises(SourceError, match="1 image"):
            plan_source("folder", root=str(tree(tmp_path, {"": 1})))

    def test_pretrain_images_of_one_is_rejected(self, tmp_path):
        with pytest.raises(
            SourceError, match=r"data.pretrain_images: expected 2 or more, received 1"
        ):
            plan_source("folder", root=str(tree(tmp_path, {"": 4})), pretrain_images=1)

    def test_one_class_is_rejected(self, tmp_path):
        with pytest.raises(SourceError, match=r"train/ has one class folder \(cat\)"):
            plan_source("folder", root=str(tree(tmp_path, {"train/cat": 3, "unlabelled": 3})))

    def test_test_classes_unknown_to_train_are_rejected(self, tmp_path):
        root = tree(tmp_path, {"train/cat": 2, "train/dog": 2, "test/cat": 1, "test/cow": 1})
        with pytest.raises(
            SourceError,
            match=r"classes of the test photos that train/ has not: cow; train/ has cat, dog",
        ):
            plan_source("folder", root=str(root))

    def test_parent_of_the_root_is_rejected(self, tmp_path):
        tree(tmp_path, {f"set/{name}": count for name, count in SPLITS.items()})
        with pytest.raises(
            SourceError,
            match=rf"holds only set/, which has test/ and train/; data.root should be {tmp_path}/set",
        ):
            plan_source("folder", root=str(tmp_path))

    def test_options_of_other_sources_are_rejected(self, tmp_path):
        with pytest.raises(SourceError, match=r'data.archive is "x"'):
            plan_source("folder", root=str(tmp_path), archive="x")
        with pytest.raises(SourceError, match=r'data.root is "x", but "textures" reads none'):
            plan_source("textures", root="x")
        with pytest.raises(
            SourceError, match=r'data.source: expected one of textures, .*; received "folders"'
        ):
            plan_source("folders")
        with pytest.raises(SourceError, match=r"data.cache: expected"):
            plan_source("folder", root=str(tmp_path), cache="disk")


def spoil(root: Path) -> dict[str, str]:
    """Adds unreadable files; returns their paths with a part of the reason for each."""
    photo(root / "whole.jpg", size=(64, 64))
    data = (root / "whole.jpg").read_bytes()
    (root / "empty.jpg").write_bytes(b"")
    (root / "cut.jpg").write_bytes(data[: len(data) // 2])
    (root / "page.jpg").write_bytes(b"<html>404</html>")
    (root / "pointer.png").symlink_to(root / "nothing.png")
    os.mkfifo(root / "pipe.png")
    return {
        "empty.jpg": "empty file",
        "cut.jpg": "truncated",
        "page.jpg": "not an image",
        "pointer.png": "link to nothing",
        "pipe.png": "not a regular file",
    }


class TestUnreadable:
    @pytest.mark.parametrize(
        "options", [{"cache": "none"}, {"cache": "auto"}, {"cache": "memory", "image_size": 8}]
    )
    def test_unreadable_files_are_listed_and_skipped(self, tmp_path, options):
        root = tree(tmp_path, {"": 40})
        bad = spoil(root)
        (root / "folder.jpg").mkdir()  # a folder by that name is a folder
        photo(root / "folder.jpg" / "inside.jpg")
        before = digest(root)
        source = open_source("folder", root=str(root), max_unreadable_fraction=0.2, **options)
        assert len(source.pretrain) == 42
        assert dict(source.skipped).keys() == bad.keys()
        for name, reason in source.skipped:
            assert bad[name] in reason
        assert digest(root) == before
        paths = sorted(
            path
            for path in root.rglob("*.[pj][np]g")
            if path.is_file() and path.name not in bad and not path.is_fifo()
        )
        if "image_size" not in options:
            for index, path in enumerate(
                sorted(paths, key=lambda path: path.relative_to(root).as_posix())
            ):
                np.testing.assert_array_equal(
                    source.pretrain[index], np.asarray(Image.open(path).convert("RGB"))
                )

    def test_too_many_unreadable_files_are_an_error(self, tmp_path):
        root = tree(tmp_path, {"": 40})
        spoil(root)
        with pytest.raises(SourceError) as caught:
            open_source("folder", root=str(root), max_unreadable_fraction=0.05)
        begins = (
            f"{root}: 5 of 46 files can't be read, more than data.max_unreadable_fraction = 0.05 "
            "allows; data.max_unreadable_fraction=0.11 skips them. For example "
        )
        assert str(caught.value).startswith(begins + "cut.jpg: image file is truncated")
        assert len(caught.value.reasons) == 5

    def test_labels_stay_with_their_photos(self, tmp_path):
        root = tree(tmp_path, {"train/cat": 5, "train/dog": 5, "test/cat": 3, "test/dog": 3})
        for name in (
            "train/cat/train_cat_1.png",
            "train/dog/train_dog_0.png",
            "test/cat/test_cat_2.png",
        ):
            (root / name).write_bytes(b"no")
        source = open_source(
            "folder", root=str(root), max_unreadable_fraction=0.5, pretrain_images=6
        )
        np.testing.assert_array_equal(source.train.labels, [0, 0, 0, 0, 1, 1, 1, 1])
        np.testing.assert_array_equal(source.test.labels, [0, 0, 1, 1, 1])
        train = {image.tobytes() for image in source.train}
        assert all(image.tobytes() in train for image in source.pretrain)
        assert 4 <= len(source.pretrain) <= 6
        for index, number in enumerate((0, 2, 3, 4)):
            np.testing.assert_array_equal(
                source.train[index],
                np.asarray(Image.open(root / f"train/cat/train_cat_{number}.png")),
            )

    def test_folder_without_readable_photo_is_rejected(self, tmp_path):
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (tmp_path / name).write_bytes(b"no")
        with pytest.raises(SourceError, match="0 readable"):
            open_source("folder", root=str(tmp_path), max_unreadable_fraction=1.0)

    def test_vanished_file_without_on_lost_is_an_error(self, tmp_path):
        root = tree(tmp_path, {"": 4})
        source = open_source("folder", root=str(root), cache="none")
        (root / "_2.png").unlink()
        with pytest.raises(
            SourceError,
            match=rf"{root}/_2.png: No such file or directory. It could be read when the run began",
        ):
            source.pretrain[2]


class TestSizesAndMemory:
    def test_photos_of_several_sizes_are_cached_with_image_size(self, tmp_path):
        root = tree(tmp_path, {"": 4})
        photo(root / "wide.png", size=(30, 10))
        plan = plan_source("folder", root=str(root))
        assert (plan.image_shape, plan.in_memory, plan.bytes_in_memory) == (None, False, 0)
        source = open_source("folder", root=str(root))
        assert source.pretrain.shape is None
        for notes in (plan.notes, source.notes):
            assert any("to keep them in memory, set data.image_size" in note for note in notes)
        with pytest.raises(SourceError, match=r"differ in size: data.image_size gives them one"):
            open_source("folder", root=str(root), cache="memory")
        source = open_source("folder", root=str(root), image_size=16)
        assert isinstance(source.pretrain, ArrayImages)
        assert source.pretrain.shape == (16, 16, 3)
        plan = plan_source("folder", root=str(root), image_size=16)
        assert (plan.image_shape, plan.bytes_in_memory) == ((16, 16, 3), 5 * 16 * 16 * 3)
        assert any(
            "smaller than data.image_size = 16, enlarged: 5" in note for note in source.notes
        )

    def test_common_size_is_found_by_headers(self, tmp_path):
        root = tree(tmp_path, {"": 4})
        assert plan_source("folder", root=str(root)).image_shape == (10, 12, 3)
        lazy = open_source("folder", root=str(root), cache="none").pretrain
        assert not isinstance(lazy, ArrayImages)
        assert lazy.batch(np.arange(4)).shape == (4, 10, 12, 3)  # known since all were checked

    def test_size_missed_by_headers_prevents_caching(self, tmp_path, monkeypatch):
        monkeypatch.setattr(own_photos, "HEADERS", 2)
        root = tree(tmp_path, {"train/cat": 5, "train/dog": 5, "test/cat": 5, "test/dog": 5})
        photo(root / "test" / "cat" / "odd.png", size=(30, 10))
        assert plan_source("folder", root=str(root)).in_memory
        source = open_source("folder", root=str(root))
        assert not any(
            isinstance(images, ArrayImages)
            for images in (source.train, source.test, source.pretrain)
        )
        assert (source.train.shape, source.test.shape) == ((10, 12, 3), None)

    def test_auto_caches_in_half_of_free_memory(self, tmp_path, monkeypatch):
        root = tree(tmp_path, {"": 4})
        needed = 4 * 12 * 10 * 3

        def free(count: int) -> None:
            monkeypatch.setattr(
                psutil, "virtual_memory", lambda: type("Memory", (), {"available": count})
            )

        free(2 * needed)
        assert plan_source("folder", root=str(root)).in_memory
        free(2 * needed - 1)
        plan = plan_source("folder", root=str(root))
        assert not plan.in_memory
        assert any("more than half of what is free" in note for note in plan.notes)
        assert not isinstance(open_source("folder", root=str(root)).pretrain, ArrayImages)
        assert plan_source("folder", root=str(root), cache="memory").in_memory
        free(needed - 1)
        with pytest.raises(SourceError, match=r'data.cache is "memory": the images take 0.0 GB'):
            plan_source("folder", root=str(root), cache="memory")

    def test_progress(self, tmp_path):
        calls = []
        open_source(
            "folder",
            root=str(tree(tmp_path, {"unlabelled": 20, **SPLITS})),
            on_progress=lambda *call: calls.append(call),
        )
        assert {work for work, _, _ in calls} == {"loading folder"}
        assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
        assert calls[-1][1:] == (31, 31)


class TestFacts:
    def test_fingerprint(self, tmp_path):
        root = tree(tmp_path / "a", {"": 4})
        first = open_source("folder", root=str(root)).fingerprint
        shutil.copytree(root, tmp_path / "b")
        assert open_source("folder", root=str(tmp_path / "b"), image_size=8).fingerprint == first
        photo(root / "_2.png", size=(13, 10))
        assert open_source("folder", root=str(root)).fingerprint != first

    def test_notes(self, tmp_path):
        root = tree(tmp_path, SPLITS)
        exif = Image.Exif()
        exif[0x0112] = 6
        photo(root / "train/cat/turned.jpg", exif=exif)
        Image.new("L", (12, 10)).save(root / "train/cat/grey.png")
        shutil.copy(root / "train/cat/train_cat_0.png", root / "test/cat/copy.png")
        notes = " ".join(open_source("folder", root=str(root)).notes)
        for part in (
            "14 photos",
            "PNG 13, JPEG 1",
            "grey 1",
            "turned upright as EXIF says: 1",
            "1 file(s) are exact copies",
            "1 of 5 test photo(s) are also among the photos to learn from",
        ):
            assert part in notes


class TestRealPhotos:
    def test_plans_of_real_folders(self, photos):
        plan = plan_source("folder", root=str(photos / "imagenette_stl10like"))
        assert plan.counts == {"pretrain": 7_000, "train": 1_000, "test": 2_000}
        assert (plan.classes, plan.image_shape) == (10, (224, 224, 3))
        plan = plan_source("folder", root=str(photos / "cifar10"))
        assert plan.counts == {"pretrain": 50_000, "train": 50_000, "test": 10_000}

    def test_real_photos_are_opened(self, photos, tmp_path):
        original = photos / "imagenette_stl10like"
        for pattern, number in (("unlabeled/*", 60), ("train/*/*", 1_000), ("test/*/*", 2_000)):
            for path in sorted(original.glob(pattern))[:: max(1, number // 60)][:60]:
                target = tmp_path / path.relative_to(original)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
        assert counts(tmp_path) == (60, 60, 60)
        source = open_source("folder", root=str(tmp_path), image_size=96)
        assert source.class_names == tuple(
            sorted(path.name for path in (original / "train").iterdir())
        )
        assert source.train.shape == (96, 96, 3)
        assert source.skipped == ()


@pytest.mark.parametrize("cache", ["auto", "none", "memory"])
def test_large_photos_of_one_size_have_no_batch_shape(tmp_path, cache):
    """A float batch of them would take gigabytes, whether or not they are cached as uint8."""
    root = tree(tmp_path, {"": 3}, size=(640, 480))
    source = open_source("folder", root=str(root), cache=cache)
    assert isinstance(source.pretrain, ArrayImages) == (cache != "none")
    assert source.pretrain.shape is None
    assert source.pretrain[0].shape == (480, 640, 3)
    assert open_source("folder", root=str(root), cache=cache, image_size=96).pretrain.shape == (
        96,
        96,
        3,
    )


@pytest.mark.parametrize("name", ["train", "Test", "val"])
def test_class_with_name_of_a_split_is_rejected(tmp_path, name):
    root = tree(tmp_path, {"bus": 3, "car": 3, name: 3})
    with pytest.raises(
        SourceError, match=rf"has {name}/ next to bus, car\. Set data\.layout: classes "
    ):
        plan_source("folder", root=str(root))
