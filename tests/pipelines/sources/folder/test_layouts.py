"""Folders as people have them, each as a small tree, and how the plan reads it."""

import io
import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from pipelines.sources import SourceError, open_source, plan_source
from pipelines.sources.folder.discovery import photo_folder


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


PHOTO = _jpeg()


def tree(root: Path, folders: dict[str, int | bytes]) -> str:
    """Makes folders of so many photos each, and files with a given content."""
    for path, content in folders.items():
        if isinstance(content, bytes):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
            continue
        (root / path).mkdir(parents=True, exist_ok=True)
        for number in range(content):
            (root / path / f"{number}.jpg").write_bytes(PHOTO)
    return str(root)


def splits(train: str, test: str, **others: int) -> dict[str, int]:
    """Two classes in each of two splits: 10 and 4 photos."""
    folders = {f"{train}/cat": 5, f"{train}/dog": 5, f"{test}/cat": 2, f"{test}/dog": 2}
    return folders | others


def run_folder(path: str) -> dict[str, int | bytes]:
    names = ("config.json", "environment.json")
    return {f"{path}/{name}": b"{}" for name in names} | {f"{path}/figures": 3}


def embeddings(path: str) -> dict[str, int | bytes]:
    names = ("about.json", "index.csv", "nearest.jpg")
    return {f"{path}/{name}": PHOTO for name in names}


CATS_AND_DOGS = {"cats": 5, "dogs": 5}
CATS, DOGS = {"cats": 5, "dogs": 5}, {"cat": 7, "dog": 7}
NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
NO_LABELS: dict[str, int] = {}

# name: (tree, data.layout, photos to learn from, of train, of test, classes with their photos)
LAYOUTS = {
    "train, test": (splits("train", "test"), "auto", 10, 10, 4, DOGS),
    "Train, Test": (splits("Train", "Test"), "auto", 10, 10, 4, DOGS),
    "training, validation": (splits("training", "validation"), "auto", 10, 10, 4, DOGS),
    "Training, Test": (splits("Training", "Test"), "auto", 10, 10, 4, DOGS),
    "TrainImages, TestImages": (splits("TrainImages", "TestImages"), "auto", 10, 10, 4, DOGS),
    "train, valid": (splits("train", "valid"), "auto", 10, 10, 4, DOGS),
    "training_set, test_set": (splits("training_set", "test_set"), "auto", 10, 10, 4, DOGS),
    "seg_train, seg_test": (
        splits("seg_train/seg_train", "seg_test/seg_test"),
        *("auto", 10, 10, 4, DOGS),
    ),
    "train2017, val2017": (splits("train2017", "val2017"), "auto", 10, 10, 4, DOGS),
    "train_images, test-images": (splits("train_images", "test-images"), "auto", 10, 10, 4, DOGS),
    "TRAIN SET, DEV SET": (splits("TRAIN SET", "DEV SET"), "auto", 10, 10, 4, DOGS),
    "train, val, test": (splits("train", "test") | {"val/cat": 3}, "auto", 10, 10, 4, DOGS),
    "unlabeled": (splits("train", "test") | {"unlabeled/2021": 3}, "auto", 3, 10, 4, DOGS),
    "Unlabelled": (splits("train", "test") | {"Unlabelled": 3}, "auto", 3, 10, 4, DOGS),
    "unlabelled_images": (
        splits("train", "test") | {"unlabelled_images": 3},
        *("auto", 3, 10, 4, DOGS),
    ),
    "train alone": ({"train/cat": 5, "train/dog": 5}, "auto", 8, 8, 2, {"cat": 5, "dog": 5}),
    "train alone, flat": ({"train": 5}, "auto", 5, 0, 0, NO_LABELS),
    "train/images, valid/images": (
        {"train/images": 5, "train/labels/0.txt": b"0", "valid/images": 2},
        *("auto", 5, 0, 0, NO_LABELS),
    ),
    "splits and seg_pred": (splits("train", "test") | {"seg_pred": 3}, "auto", 10, 10, 4, DOGS),
    "labelled next to years": (
        {"2022": 3, "2023/may": 4, "labelled/cats": 5, "labelled/dogs": 5},
        *("auto", 7, 8, 2, CATS),
    ),
    "Labeled next to others": (
        {"Labeled/cats": 5, "Labeled/dogs": 5, "rest": 3},
        *("auto", 3, 8, 2, CATS),
    ),
    "labelled next to albums with a split's word": (
        {"labelled/cats": 5, "labelled/dogs": 5, "steam train": 3, "test shots": 1},
        *("auto", 4, 8, 2, CATS),
    ),
    "classes": (CATS_AND_DOGS, "auto", 10, 8, 2, CATS),
    "classes in digits": ({"0": 5, "1": 5}, "auto", 10, 8, 2, {"0": 5, "1": 5}),
    "classes with folders": (
        {"cats/may": 3, "cats/june": 2, "dogs": 5},
        *("auto", 10, 8, 2, CATS),
    ),
    "class names that begin like splits": (
        {"trains": 5, "valley": 5, "testudo": 5},
        *("auto", 15, 12, 3, {"testudo": 5, "trains": 5, "valley": 5}),
    ),
    "train station, airport": (
        {"train station": 5, "airport": 5},
        *("auto", 10, 8, 2, {"airport": 5, "train station": 5}),
    ),
    "classes that end or begin with a split's word": (
        {"steam train": 5, "test_tube": 5, "oval": 5},
        *("auto", 15, 12, 3, {"oval": 5, "steam train": 5, "test_tube": 5}),
    ),
    "classes called gallery, mask, thumbs": (
        {"gallery": 5, "mask": 5, "thumbs": 5},
        *("auto", 15, 12, 3, {"gallery": 5, "mask": 5, "thumbs": 5}),
    ),
    "photos, masks, statues": (
        {"photos": 5, "masks": 5, "statues": 5},
        *("auto", 15, 12, 3, {"masks": 5, "photos": 5, "statues": 5}),
    ),
    "May, Rose": ({"May": 5, "Rose": 5}, "auto", 10, 8, 2, {"May": 5, "Rose": 5}),
    "Golf 2012, Beetle": (
        {"Golf 2012": 5, "Beetle": 5},
        *("auto", 10, 8, 2, {"Beetle": 5, "Golf 2012": 5}),
    ),
    "accents in two forms": (
        {f"train/{NFC}": 5, "train/tea": 5, f"test/{NFD}": 2, "test/tea": 2},
        *("auto", 10, 10, 4, {NFC: 7, "tea": 7}),
    ),
    "heap": ({"": 5}, "auto", 5, 0, 0, NO_LABELS),
    "years": ({"2021": 2, "2022/05": 3}, "auto", 5, 0, 0, NO_LABELS),
    "dated albums": ({"2021-05-14 Rome": 2, "2021_06": 3}, "auto", 5, 0, 0, NO_LABELS),
    "months": ({"January": 2, "02 February": 2, "March 2023": 1}, "auto", 5, 0, 0, NO_LABELS),
    "camera": ({"DCIM/100APPLE": 2, "DCIM/101APPLE": 3}, "auto", 5, 0, 0, NO_LABELS),
    "camera folders": ({"100CANON": 2, "101CANON": 3}, "auto", 5, 0, 0, NO_LABELS),
    "classes and a loose photo": ({"": 1, **CATS_AND_DOGS}, "auto", 11, 0, 0, NO_LABELS),
    "folder in a folder": ({"set/cats": 5, "set/dogs": 5}, "auto", 10, 0, 0, NO_LABELS),
    "Synology": (
        {**CATS_AND_DOGS, "cats/@eaDir/0.jpg": 3, "@eaDir/x": 3, "#recycle": 3},
        *("auto", 10, 8, 2, CATS),
    ),
    "QNAP": ({**CATS_AND_DOGS, "cats/@__thumb": 3, "@Recycle": 3}, "auto", 10, 8, 2, CATS),
    "Windows": (
        {**CATS_AND_DOGS, "$RECYCLE.BIN/S-1": 3, "System Volume Information": 3},
        *("auto", 10, 8, 2, CATS),
    ),
    "archive, disk": (
        {**CATS_AND_DOGS, "__MACOSX/cats": 3, "lost+found": 3, ".thumbnails/normal": 3},
        *("auto", 10, 8, 2, CATS),
    ),
    "runs of its own": (
        CATS_AND_DOGS | run_folder("runs/demo-1") | {"runs/small/table.md": b"", "runs/a": 0},
        *("auto", 10, 8, 2, CATS),
    ),
    "embeddings of its own": (CATS_AND_DOGS | embeddings("embeddings/p-1"), "auto", 10, 8, 2, CATS),
    "a study of its own": (
        CATS_AND_DOGS | {"s/table.md": b"", "s/table.tex": b"", "s/bars.png": PHOTO},
        *("auto", 10, 8, 2, CATS),
    ),
    "a comparison of its own": (
        {**CATS_AND_DOGS, "comparison.png": PHOTO, "comparison.md": b""},
        *("auto", 10, 8, 2, CATS),
    ),
    "thumbnails, chkdsk": (
        {**CATS_AND_DOGS, "cats/Thumbnails": 3, "FOUND.000": 3},
        *("auto", 10, 8, 2, CATS),
    ),
    "a class that is called runs": (
        {"runs": 5, "rests": 5},
        *("auto", 10, 8, 2, {"rests": 5, "runs": 5}),
    ),
    "splits as classes": (
        {"train": 5, "bus": 5},
        *("classes", 10, 8, 2, {"bus": 5, "train": 5}),
    ),
    "years as classes": (
        {"1990": 5, "1991": 5},
        *("classes", 10, 8, 2, {"1990": 5, "1991": 5}),
    ),
    "classes without the loose photo": ({"": 1, **CATS_AND_DOGS}, "classes", 10, 8, 2, CATS),
    "val with classes, flat test": (
        {**splits("train", "val"), "test": 3},
        *("auto", 10, 10, 4, DOGS),
    ),
    "albums of Takeout": (
        {"Photos from 2019": 3, "Photos from 2020": 3},
        "auto",
        6,
        0,
        0,
        NO_LABELS,
    ),
    "days first": ({"24-12-2019": 3, "1.1.2020 Rome": 3}, "auto", 6, 0, 0, NO_LABELS),
    "numbered classes": (
        {"c0": 5, "c1": 5},
        *("auto", 10, 8, 2, {"c0": 5, "c1": 5}),
    ),
    "train, eval, unsup": (
        splits("train", "eval") | {"unsup": 7},
        *("auto", 7, 10, 4, DOGS),
    ),
    "classes as heap": (CATS_AND_DOGS, "flat", 10, 0, 0, NO_LABELS),
    "splits as heap": (splits("train", "test"), "flat", 14, 0, 0, NO_LABELS),
    "splits next to others": (
        splits("train", "test") | {"train_old": 3},
        *("splits", 10, 10, 4, DOGS),
    ),
}

# name: (tree, data.layout, a part of the error)
ERRORS = {
    "train next to classes": (
        {"train": 3, "bus": 3},
        "auto",
        "train/ next to bus. Set data.layout",
    ),
    "valid next to broken": ({"valid": 3, "broken": 3}, "auto", "valid/ next to broken"),
    "test set without a train set": (
        {"Test/cat": 2, "Test/dog": 2, "pictures/cat": 5, "pictures/dog": 5},
        *("auto", "Test/ next to pictures. Set data.layout"),
    ),
    "train_v2, test_v2": (splits("train_v2", "test_v2"), "auto", "test_v2, train_v2, named nearly"),
    "x_train, x_test": (splits("x_train", "x_test"), "auto", "x_test, x_train, named nearly"),
    "dogs-train, dogs-test": (
        {"dogs-train": 3, "dogs-test": 3, "cats": 3},
        *("auto", "dogs-test, dogs-train, named nearly"),
    ),
    "trainA, testB, ...": (
        {f"{split}{letter}": 2 for split in ("train", "test") for letter in "AB"},
        *("auto", "testA, testB, trainA, trainB, named nearly"),
    ),
    "Trainingsdaten, Testdaten": (
        splits("Trainingsdaten", "Testdaten"),
        *("auto", "Testdaten, Trainingsdaten, named nearly"),
    ),
    "my_test next to train": (splits("train", "my_test"), "auto", "my_test, named nearly"),
    "gallery, query": (splits("gallery", "query"), "auto", "gallery/ and query/, as sets"),
    "folds": (splits("fold1", "fold2"), "auto", "fold1, fold2, named like parts of one set"),
    "images_001, images_002": (
        {"images_001": 3, "images_002": 3},
        *("auto", "images_001, images_002, named like parts of one set"),
    ),
    "ham_part_1, ham_part_2": (
        {"ham_part_1": 3, "ham_part_2": 3},
        *("auto", "ham_part_1, ham_part_2, named like parts of one set"),
    ),
    "images, ground_truth": (
        {"images": 3, "ground_truth": 3},
        *("auto", "ground_truth next to images, of which they may be made"),
    ),
    "unlabeled next to classes": (
        {"unlabeled": 9, "cats": 3, "dogs": 3},
        *("auto", "unlabeled/ next to cats, dogs"),
    ),
    "grandparent": (
        {f"set/v1/{path}": count for path, count in splits("train", "test").items()},
        *("auto", "data.root should be {root}/set/v1"),
    ),
    "images, masks": (
        {"images": 3, "masks": 3},
        *("auto", "masks next to images, of which they may be made.*Set data.layout"),
    ),
    "albums that end in years": (
        {"Holiday 2023": 3, "Wedding (2021)": 3},
        *("auto", "Holiday 2023, Wedding (2021), which may be albums of a year, or classes"),
    ),
    "train_old next to test": (splits("train_old", "test"), "auto", "train_old, named nearly"),
    "years next to classes": (
        {"2021": 3, "2022": 3, "cats": 3},
        *("auto", "2021, 2022, named like albums, next to cats"),
    ),
    "splits in each class": (
        splits("cat", "dog") | {"cat/train": 3, "cat/test": 1, "dog/train": 3},
        *("auto", "cat, dog, test, train in each of cat, dog"),
    ),
    "labelled and train": (
        {"labelled/a": 3, "labelled/b": 3, "train/a": 3, "train/b": 3},
        *("auto", "both labelled, train"),
    ),
    "parent": (
        {f"set/{path}": count for path, count in splits("Training", "valid").items()},
        *("auto", "data.root should be {root}/set"),
    ),
    "no splits": (CATS_AND_DOGS, "splits", "has no folder that is named like one"),
    "one class": ({"cats": 3}, "classes", "takes two folders or more; {root} has 1"),
    "only junk": (
        {"@eaDir": 3},
        *("auto", "holds no photos .*passed over: 1 folder(s) of the system (@eaDir)"),
    ),
    "unknown layout": (CATS_AND_DOGS, "heap", "data.layout: expected one of auto, classes"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_read_as_planned(tmp_path, name):
    folders, layout, pretrain, train, test, classes = LAYOUTS[name]
    root = tree(tmp_path, folders)
    plan = plan_source("folder", root=root, layout=layout)
    assert dict(plan.counts) == {"pretrain": pretrain, "train": train, "test": test}
    assert dict(plan.class_counts) == classes
    source = open_source("folder", root=root, layout=layout)
    assert (len(source.pretrain), source.class_names) == (pretrain, tuple(classes))


@pytest.mark.parametrize("name", ERRORS)
def test_ambiguous_layout_is_an_error(tmp_path, name):
    folders, layout, message = ERRORS[name]
    root = tree(tmp_path, folders)
    with pytest.raises(SourceError) as error:
        plan_source("folder", root=root, layout=layout)
    for part in message.format(root=root).split(".*"):
        assert part in str(error.value)


def test_what_is_passed_over_is_named(tmp_path):
    root = tree(
        tmp_path, CATS_AND_DOGS | run_folder("runs/demo") | {"cats/@eaDir": 1, "#recycle": 1}
    )
    notes = plan_source("folder", root=root).notes
    assert "passed over: 2 folder(s) of the system (#recycle, cats/@eaDir)" in notes
    assert "passed over: 1 folder(s) that byol_tf wrote (runs/demo)" in notes


def test_each_folder_is_read_once_by_whatever_links(tmp_path):
    """With two links a level, 30 levels have 2^30 paths; a path may have 40 links."""
    levels = 30
    for level in range(levels):
        (tmp_path / f".{level}").mkdir()
        for name in "ab" if level < levels - 1 else "":
            (tmp_path / f".{level}" / name).symlink_to(f"../.{level + 1}")
    (tmp_path / "start").symlink_to(".0")
    tree(tmp_path, {f".{levels - 1}": 2, "album": 3})
    (tmp_path / "a link to it").symlink_to("album")
    plan = plan_source("folder", root=str(tmp_path), layout="flat")
    assert plan.counts["pretrain"] == 5
    assert any("that other paths lead to (a link to it, " in note for note in plan.notes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_folder_that_cannot_be_read_is_listed(tmp_path):
    root = tree(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "b").chmod(0)
    try:
        source = open_source("folder", root=root, layout="flat", max_unreadable_fraction=0.5)
    finally:
        (tmp_path / "b").chmod(0o700)
    assert source.skipped == (("b/", "folder can't be read: Permission denied"),)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("", "data.root: expected a folder of photos; received an empty text"),
        ("x" * 300, "can't be read: File name too long"),
        ("a\0b", "can't be read: .*embedded null"),
        ("~nobody-of-this-name/photos", "there is no folder "),
        ("x" * 300 + ".txt", "can't be read: File name too long"),
    ],
)
def test_impossible_root_is_an_error(root, message):
    with pytest.raises(SourceError, match=message):
        plan_source("folder", root=root)


def test_dots_lead_to_the_folder_above(tmp_path, monkeypatch):
    """Outputs are named after the folder: `--images ..` would have a hidden one."""
    (tmp_path / "album" / "day").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "album" / "day")
    assert photo_folder("..") == tmp_path / "album"


def test_folder_whose_state_is_unknown_is_listed(tmp_path, monkeypatch):
    """A mount whose server died is shown by its parent, and doesn't answer itself."""
    tree(tmp_path, {"a": 5, "2024": 3, "notes.txt": b""})
    for link in ("phone", "2024.06", "St. Louis"):
        (tmp_path / link).symlink_to(tmp_path / "unplugged")
    real = os.scandir

    class Dead:
        def __init__(self, entry):
            self.name, self.is_symlink, self.is_dir = entry.name, entry.is_symlink, entry.is_dir

        def stat(self):
            raise OSError(107, "Transport endpoint is not connected")

    def scandir(folder):
        dead = ("2024", "notes.txt")
        return [Dead(entry) if entry.name in dead else entry for entry in real(folder)]

    monkeypatch.setattr(os, "scandir", scandir)
    source = open_source("folder", root=str(tmp_path), layout="flat", max_unreadable_fraction=0.5)
    assert len(source.pretrain) == 5
    assert dict(source.skipped) == {
        "2024/": "folder can't be read: Transport endpoint is not connected",
        "2024.06": "link to nothing",
        "St. Louis": "link to nothing",
        "phone": "link to nothing",
    }
    assert "not photos by their names: 1 file(s) (1 .txt)" in source.notes
