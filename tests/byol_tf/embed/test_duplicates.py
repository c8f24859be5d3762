"""Near-duplicates: planted copies of real photos, chains of pairs in blocks, flat pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.sparse.csgraph import connected_components

from byol_tf.embed import duplicates
from byol_tf.embed.duplicates import find_duplicates
from pipelines.sources import FlatImageFolder

COPIES = {
    "encoded": (lambda image: image, 40),
    "half": (lambda image: image.resize((image.width // 2, image.height // 2)), 85),
    "cropped": (lambda image: image.crop((8, 8, image.width - 8, image.height - 8)), 92),
    "bright": (lambda image: ImageEnhance.Brightness(image).enhance(1.25), 92),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 92),
}
"""How a copy is made, and the quality of its JPEG."""


def embedded(folder: Path, embed) -> SimpleNamespace:
    """What `EmbeddedPhotos` has, with embeddings by a function of the pixels."""
    images = FlatImageFolder(str(folder), "--images")
    embeddings = np.stack([embed(images.read(photo)) for photo in images.photos])
    return SimpleNamespace(
        images=images, photos=images.photos, embeddings=embeddings.astype(np.float32)
    )


def few_pixels(pixels: np.ndarray) -> np.ndarray:
    """A weak encoder: most photos have a cosine above 0.9 to others."""
    return np.asarray(Image.fromarray(pixels).resize((4, 4)), np.float32).ravel()


def groups_of_names(found: SimpleNamespace, groups) -> list[list[str]]:
    return [[found.photos[row].name for row in group.rows] for group in groups]


def test_copies_of_real_photos_are_found_and_no_others(photos, tmp_path):
    for number, path in enumerate(sorted((photos / "imagenette_stl10like" / "test").rglob("*.*"))):
        if number % 16 == 0:  # 125 photos
            image = Image.open(path).convert("RGB")
            image.save(tmp_path / f"{number}.png")
            if number % 80 == 0:  # 25 of them with copies
                for name, (make, quality) in COPIES.items():
                    make(image).save(tmp_path / f"{number}-{name}.jpg", quality=quality)
    found = embedded(tmp_path, few_pixels)
    groups = groups_of_names(found, find_duplicates(found))
    origins = [{name.split(".")[0].split("-")[0] for name in group} for group in groups]
    grouped = [name for group in groups for name in group if "-" in name]
    assert len(found.photos) == 250
    assert sum(len(origin) > 1 for origin in origins) <= 1
    assert len(grouped) >= 0.96 * 125
    assert all(group[0].endswith(".png") for group in groups)  # the largest file is kept


def test_photos_that_differ_need_a_cosine(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(tmp_path / f"{number}.png")
    found = embedded(tmp_path, lambda pixels: np.ones(2))
    assert find_duplicates(found) == []
    (group,) = find_duplicates(found, cosine=1.0)
    assert sorted(group.rows) == [0, 1, 2] and group.cosines == pytest.approx([1, 1, 1])


def test_flat_pictures_are_alike_and_unreadable_ones_are_not(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(200, 202, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    found = embedded(tmp_path, lambda pixels: np.ones(2))
    (tmp_path / "1.png").write_bytes(b"gone")
    assert groups_of_names(found, find_duplicates(found)) in (
        [["0.png", "2.png"]],
        [["2.png", "0.png"]],
    )


def test_groups_are_the_components_of_all_pairs(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK_ROWS", 7)
    monkeypatch.setattr(duplicates, "_CHUNK_PAIRS", 5)
    angles = np.random.default_rng(0).uniform(0, np.pi / 2, 60)
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    photos = [SimpleNamespace(bytes=row) for row in range(60)]
    groups = find_duplicates(SimpleNamespace(embeddings=embeddings, photos=photos), np.cos(0.02))
    near = np.abs(angles[:, None] - angles) <= 0.02
    labels = connected_components(near)[1]
    expected = [np.flatnonzero(labels == label).tolist() for label in np.unique(labels)]
    assert sorted(sorted(group.rows) for group in groups) == sorted(
        rows for rows in expected if len(rows) > 1
    )
    assert len(groups) > 3 and max(len(group.rows) for group in groups) > 3  # chains, too
    sizes = [len(group.rows) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    for group in groups:
        assert group.rows[0] == max(group.rows)  # of the largest file
        assert group.cosines == pytest.approx(np.cos(angles[group.rows] - angles[group.rows[0]]))
        assert group.cosines[1:] == sorted(group.cosines[1:], reverse=True)
