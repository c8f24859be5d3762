"""Names below the photos of a sheet."""

import pytest

from byol_tf.embed.contact_sheet import short_name


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("cats/1.jpg", "cats/1.jpg"),
        ("photos/train/church/n03028079_1.jpg", "…/church/n03028079_1.jpg"),
        ("photos/train/cassette/n03028079_10.jpg", "…/n03028079_10.jpg"),
        ("holiday/IMG_20250704_120000_beach_0001.jpg", "IMG_2025070…ach_0001.jpg"),
    ],
)
def test_name_is_cut_between_folders_and_else_in_its_middle(name, short):
    assert short_name(name) == short
    assert len(short) <= 24
