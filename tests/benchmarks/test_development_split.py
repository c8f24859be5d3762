"""A development split has no photo in two places, and none of other folders."""

import pytest

from benchmarks.development_split import split_photos


@pytest.fixture
def photos(tmp_path):
    """Two classes of six files, which have the same names."""
    source = tmp_path / "train"
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        for number in range(6):
            (source / name / f"{number}.jpg").write_text(f"{name} {number}")
    return source


def contents(folder):
    return [path.read_text() for path in sorted(folder.rglob("*.jpg"))]


def test_test_photos_are_in_no_other_split(photos, tmp_path):
    folder = tmp_path / "development"
    assert split_photos(photos, folder, labelled=3, test=2) == 8
    train, test, unlabelled = (contents(folder / s) for s in ("train", "test", "unlabeled"))
    assert (len(train), len(test), len(set(unlabelled))) == (6, 4, 8)
    assert not set(test) & set(unlabelled)
    assert set(train) < set(unlabelled)
    assert set(test) | set(unlabelled) == set(contents(photos))


def test_too_few_photos_are_an_error_before_anything_is_written(photos, tmp_path):
    with pytest.raises(SystemExit, match="cat: expected 7 photos or more; found 6"):
        split_photos(photos, tmp_path / "development", labelled=4, test=3)
    assert not (tmp_path / "development").exists()
