"""Lists of photos in place of a folder."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import SourceError, open_source, plan_source


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Path:
    """A folder with `photos/00.png` to `photos/19.png`, each of its own grey, and `a, b.png`."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "photos").mkdir()
    for number in range(20):
        Image.fromarray(np.full((8, 9, 3), 10 * number, np.uint8)).save(
            folder / "photos" / f"{number:02}.png"
        )
    Image.fromarray(np.full((8, 9, 3), 255, np.uint8)).save(folder / "photos" / "a, b.png")
    return folder


def opened(file: Path, text: str, **options):
    """Writes a list, opens it, and compares the source with its plan."""
    file.write_text(text, encoding="utf-8")
    plan, source = (
        plan_source("folder", root=str(file), **options),
        open_source("folder", root=str(file), **options),
    )
    sizes = {
        "pretrain": len(source.pretrain),
        "train": len(source.train or ()),
        "test": len(source.test or ()),
    }
    assert plan.counts == sizes
    assert plan.classes == len(source.class_names)
    return source


def greys(images) -> list[int]:
    return [int(image[0, 0, 0]) for image in images]


def test_paths_are_relative_to_the_list_or_absolute(shelf, tmp_path):
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    up = os.path.relpath(shelf, elsewhere)
    text = (
        f"\ufeff# some photos\n\n{up}/photos/03.png\r\n   \n{shelf}/photos/01.png\n"
        f"./{up}/photos/02.png\n{up}/photos/a, b.png\n"
    )
    source = opened(elsewhere / "list.txt", text)
    assert sorted(greys(source.pretrain)) == [10, 20, 30, 255]
    assert (source.train, source.class_names, source.skipped) == (None, (), ())
    assert f"4 photos in {elsewhere}/list.txt, " in source.notes[0]


@pytest.mark.parametrize(
    ("name", "separator", "quote"),
    [("list.txt", "\t", ""), ("list.csv", ",", '"'), ("tabs.csv", "\t", "")],
)
def test_classes_are_divided_as_class_folders_are(shelf, name, separator, quote):
    rows = [
        f"photos/{number:02}.png{separator}{('even', 'odd')[number % 2]}\n" for number in range(20)
    ]
    rows += [f"{quote}photos/a, b.png{quote}{separator}odd\n"]
    source = opened(shelf / name, f"path{separator}label\n" + "".join(rows))
    assert source.class_names == ("even", "odd")
    np.testing.assert_array_equal(np.bincount(source.test.labels), [2, 2])
    for images in (source.train, source.test):
        assert [(grey // 10) % 2 for grey in greys(images)] == images.labels.tolist()
    assert len(source.pretrain) == 21
    again = opened(shelf / name, "".join(rows[::-1]))  # the order of lines is nobody's choice
    assert (greys(again.train), again.fingerprint) == (greys(source.train), source.fingerprint)
    other = opened(shelf / name, "".join(rows).replace("odd", "strange"))
    assert other.fingerprint != source.fingerprint


def test_photos_without_class_are_unlabelled(shelf):
    rows = [f"photos/{number:02}.png" + f"\t{number % 3}" * (number < 12) for number in range(20)]
    source = opened(shelf / "some.txt", "\n".join(rows))
    assert greys(source.pretrain) == [10 * number for number in range(12, 20)]
    assert len(source.train) + len(source.test) == 12


def test_missing_files_are_skipped_and_listed(shelf):
    text = "photos/00.png\nphotos/01.png\nphotos\nphotos/99.png\n"
    source = opened(shelf / "gone.txt", text, max_unreadable_fraction=0.5)
    assert source.skipped == (
        ("photos", "a folder, not a photo"),
        ("photos/99.png", "No such file or directory"),
    )
    with pytest.raises(
        SourceError, match=r"gone.txt: 2 of 4 files can't be read, .* For example photos: a folder"
    ):
        opened(shelf / "gone.txt", text)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "x.txt",
            "photos/00.png\n\n\tcat\n",
            r"x\.txt:3: a label \('cat'\) without a path",
        ),
        (
            "x.txt",
            "photos/00.png\ta\tb\n",
            r"x\.txt:1: expected a path, or a path and a class; received 3 fields",
        ),
        (
            "x.csv",
            "photos/a, b.png,cat\n",
            r"x\.csv:1: expected a path, or a path and a class; received 3 fields",
        ),
        (
            "x.csv",
            '"photos/00.png,cat\n',
            r"x\.csv:1: expected a quote at both ends of a field, or at none ",
        ),
        ("x.txt", "a\0b\n", r"x\.txt:1: .* received a zero byte"),
        (
            "x.txt",
            "photos/00.png\n# again\n./photos/00.png\n",
            r"x\.txt:3: photos/00.png stands in line 1 already",
        ),
        ("x.txt", "\ta\n" * 29, r"x\.txt:20: [^\n]*\n... and 9 more"),
        (
            "x.txt",
            "photos/00.png,cat\n",
            r"x\.txt lists 1 file\(s\), and none of them is there.* a class stands behind a tab",
        ),
        (
            "x.csv",
            "picture,class\nphotos/00.png,cat\nphotos/01.png,dog\n",
            r"x\.csv:1: picture: there is no such photo; if the line names the columns, expected path",
        ),
        ("x.txt", "# none yet\n", r"x\.txt lists 0 file\(s\)"),
        (
            "x.csv",
            "photos/00.png,cat\nphotos/01.png,cat\n",
            r"x\.csv has one class \(cat\); a probe needs two or more",
        ),
    ],
)
def test_invalid_list_is_rejected(shelf, name, text, message):
    (shelf / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        plan_source("folder", root=str(shelf / name))


def test_missing_list_is_rejected(tmp_path):
    with pytest.raises(
        SourceError,
        match=rf"data.root: {tmp_path}/list.txt: expected a list of photos; No such file",
    ):
        plan_source("folder", root=str(tmp_path / "list.txt"))


def test_plan_counts_missing_photos_and_unread_columns(shelf):
    (shelf / "some.csv").write_text(
        "path,label,split\n"
        + "".join(f"photos/{number:02}.png,{number % 2},train\n" for number in range(30))
    )
    plan = plan_source("folder", root=str(shelf / "some.csv"), max_unreadable_fraction=0.5)
    assert (
        "skipped: 10 that can't be read: photos/20.png and 9 more: No such file or directory"
    ) in plan.notes
    assert "columns that aren't read: split" in plan.notes
    assert plan.class_counts == {"0": 10, "1": 10}
    with pytest.raises(
        SourceError,
        match=r"some\.csv: 10 of 30 files can't be read.*max_unreadable_fraction=0\.34 skips them",
    ):
        plan_source("folder", root=str(shelf / "some.csv"))


@pytest.mark.parametrize("choice", ["classes", "splits"])
def test_list_has_no_folders_to_lay_out(shelf, choice):
    (shelf / "x.txt").write_text("photos/00.png\tcat\nphotos/01.png\tdog\n")
    with pytest.raises(SourceError, match=r'data\.layout: expected "auto" or "flat" for a list'):
        plan_source("folder", root=str(shelf / "x.txt"), layout=choice)
    plan = plan_source("folder", root=str(shelf / "x.txt"), layout="flat")
    assert (dict(plan.counts), plan.classes) == ({"pretrain": 2, "train": 0, "test": 0}, 0)
