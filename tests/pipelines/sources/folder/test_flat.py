"""`Photos`: rows by path and by name, in any order."""

import numpy as np
import pytest

from pipelines.sources import Photo, Photos, printable

PATHS = ["a.jpg", "a\\b.jpg", "a\\\\b.jpg", "line\nend.jpg", "\udcff.jpg"]


@pytest.mark.parametrize("paths", [sorted(PATHS), PATHS[::-1]], ids=["ascending", "descending"])
def test_each_photo_is_found_by_its_path_and_by_its_name(paths):
    photos = Photos(paths, np.arange(5), np.arange(5) + 2**62)
    for row, path in enumerate(paths):
        assert photos[row] == Photo(path, row, 2**62 + row)
        assert photos.row_of_path(path) == row
        assert photos.row_of_name(printable(path)) == row
    for missing in ("", "b.jpg", "z", "\\"):
        assert photos.row_of_path(missing) is None and photos.row_of_name(missing) is None


def test_slices_and_selections_are_photos():
    photos = Photos(sorted(PATHS), np.arange(5), np.arange(5))
    assert list(photos[1:3]) == [photos[1], photos[2]] == list(photos.take(np.array([1, 2])))
    assert len(photos[5:]) == 0 and not photos[5:]
    with pytest.raises(IndexError):
        photos[5]
