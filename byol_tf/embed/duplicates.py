"""Near-duplicates: groups of photos that are copies of one another.

By default those are copies that were encoded again, resized, cropped a little, brightened or
mirrored: the cosine of their embeddings alone would also join photos of one scene, and with a weak
encoder many others, so that their pixels are compared too.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from byol_tf.embed.contact_sheet import Cell, short_name, write_sheet
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.similar import read_thumbnail
from byol_tf.embed.vectors import BLOCK_ROWS, normalized
from byol_tf.logs import ProgressLog
from byol_tf.runs.files import write_csv
from pipelines.sources import FlatImages, Photo, false_color

SHEET_GROUPS = 40
"""Most groups that a sheet shows."""
_SHEET_COLUMNS = 9
_COSINE = 0.9
"""Least cosine of two embeddings whose pixels are compared. docs/curation.md has the measurement
that this one and `_CORRELATION` are from."""
_CORRELATION = 0.95
"""Least correlation of two pictures, of which one may be cropped, in 16 x 16 grey pixels."""
_COARSE_CORRELATION = 0.6
"""The same of pictures that aren't cropped, in 8 x 8: sorts out most pairs by a matrix product."""
_PICTURE, _CROP, _COARSE = 32, 16, 8
_SIDES = ((0.0, 1.0), (0.0, 0.9), (0.05, 0.9), (0.1, 0.9))
"""Start and length of a side of the whole picture, and of what a crop of a tenth leaves of it."""
_CROPS = ((0, 0), (2, 2), (1, 1), (1, 3), (3, 1), (3, 3))
"""Indices in `_SIDES`, vertically and horizontally: the whole picture; its centre, its corners."""
_FLAT = 2.0
"""Grey levels below which differences within a picture are noise."""
_CHUNK_PAIRS = 2_048

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DuplicateGroup:
    """Photos that are copies of one another, directly or by way of others.

    Attributes:
        rows: of the photos: that with the largest file, then the others by descending cosine.
        cosines: of each to the first.
    """

    rows: list[int]
    cosines: list[float]


def find_duplicates(embedded: EmbeddedPhotos, cosine: float | None = None) -> list[DuplicateGroup]:
    """Finds near-duplicates among all pairs of photos.

    Time grows with the square of the number of photos. Memory beyond the embeddings: 1.2 KB a
    photo, and 0.3 GB.

    Args:
        embedded: the photos.
        cosine: a pair is two photos whose embeddings have at least this cosine, whatever their
            pixels. By default their pixels have to match as well.

    Returns:
        The groups that the pairs form, the largest first.
    """
    photos, embeddings = embedded.photos, embedded.embeddings
    if cosine is None:
        pictures, readable = _grey_pictures(embedded.images, photos)
        coarse = _coarse(pictures) * readable[:, None]
        parents = _joined_pairs(embeddings, _COSINE, coarse, pictures)
    else:
        parents = _joined_pairs(embeddings, cosine)
    roots = _roots(parents, np.arange(len(parents)))
    order = np.argsort(roots, kind="stable")
    starts = np.flatnonzero(np.diff(roots[order], prepend=-1))
    members = [rows for rows in np.split(order, starts[1:]) if len(rows) > 1]
    groups = [_group(rows, photos, embeddings) for rows in members]
    return sorted(groups, key=lambda group: (-len(group.rows), group.rows[0]))


def write_duplicates(
    path: Path, embedded: EmbeddedPhotos, groups: Sequence[DuplicateGroup]
) -> None:
    """Writes a CSV file: group, path, cosine to the photo to keep, suggestion (keep or drop)."""
    write_csv(
        path,
        ("group", "path", "cosine", "suggestion"),
        (
            (number, embedded.photos[row].name, f"{cosine:.6f}", "drop" if place else "keep")
            for number, group in enumerate(groups, start=1)
            for place, (row, cosine) in enumerate(zip(group.rows, group.cosines, strict=True))
        ),
    )


def write_duplicates_sheet(
    path: Path, embedded: EmbeddedPhotos, groups: Sequence[DuplicateGroup]
) -> None:
    """Draws a row for each of the first `SHEET_GROUPS` groups, as a PNG."""
    rows = []
    for group in groups[:SHEET_GROUPS]:
        row = []
        for place, (index, cosine) in enumerate(
            zip(group.rows[:_SHEET_COLUMNS], group.cosines, strict=False)
        ):
            photo = embedded.photos[index]
            caption = f"{short_name(photo.name)}\n" + (f"{cosine:.3f}" if place else "keep")
            row.append(Cell(read_thumbnail(embedded.images, photo), caption, framed=not place))
        rows.append(row)
    write_sheet(path, rows, "near-duplicates, a group a row; framed: the largest file")


def _grey_pictures(images: FlatImages, photos: Sequence[Photo]) -> tuple[np.ndarray, np.ndarray]:
    """Reads photos as small pictures.

    Returns:
        `(pictures, readable)`: uint8 `[n, 32, 32]`, and bool `[n]`: whether each could be read.
    """
    pictures = np.zeros((len(photos), _PICTURE, _PICTURE), np.uint8)
    readable = np.zeros(len(photos), bool)
    progress = ProgressLog(logger)
    for row, (_, pixels, _) in enumerate(images.read_each(photos)):
        if pixels is not None:
            grey = Image.fromarray(false_color(pixels)).convert("L")
            pictures[row] = np.asarray(grey.resize((_PICTURE, _PICTURE), Image.Resampling.BOX))
            readable[row] = True
        progress("reading the pixels", row + 1, len(photos))
    return pictures, readable


def _joined_pairs(
    embeddings: np.ndarray,
    cosine: float,
    coarse: np.ndarray | None = None,
    pictures: np.ndarray | None = None,
) -> np.ndarray:
    """Joins the rows of all pairs, in blocks of rows.

    Args:
        embeddings: float `[n, d]`.
        cosine: the least one of a pair.
        coarse: float `[n, c]`, rows of length 1 whose product is at least `_COARSE_CORRELATION` for
            a pair; by default pixels don't matter.
        pictures: uint8 `[n, 32, 32]`, whose correlation is at least `_CORRELATION` for a pair.

    Returns:
        int64 `[n]`, for each row another one that it is joined with, or itself: see `_roots`.
    """
    count = len(embeddings)
    parents = np.arange(count)
    progress = ProgressLog(logger)
    for top in range(0, count, BLOCK_ROWS):
        block = normalized(embeddings[top : top + BLOCK_ROWS])
        for left in range(top, count, BLOCK_ROWS):
            others = slice(left, left + BLOCK_ROWS)
            alike = block @ normalized(embeddings[others]).T >= cosine - 1e-6  # float32 rounds
            if coarse is not None:
                alike &= coarse[top : top + BLOCK_ROWS] @ coarse[others].T >= _COARSE_CORRELATION
            if top == left:
                alike = np.triu(alike, 1)
            first, second = np.nonzero(alike)
            _join(parents, first + top, second + left, pictures)
        progress("comparing all pairs", min(top + BLOCK_ROWS, count), count)
    return parents


def _join(
    parents: np.ndarray, first: np.ndarray, second: np.ndarray, pictures: np.ndarray | None
) -> None:
    """Joins the rows of pairs whose pictures match.

    Pairs whose rows are joined already are ignored, so that many copies of one photo take no longer
    than as many different photos.
    """
    if pictures is not None and len(first):
        rows, index = np.unique(np.concatenate([first, second]), return_inverse=True)
        crops, mirrored = _crops(pictures[rows]), _crops(pictures[rows][:, :, ::-1])
        places, other_places = np.split(index, 2)
    for start in range(0, len(first), _CHUNK_PAIRS):
        chunk = np.arange(start, min(start + _CHUNK_PAIRS, len(first)))
        chunk = chunk[_roots(parents, first[chunk]) != _roots(parents, second[chunk])]
        if pictures is not None and len(chunk):
            one, other = crops[places[chunk]], other_places[chunk]
            correlations = np.maximum(
                _correlations(one, crops[other]), _correlations(one, mirrored[other])
            )
            chunk = chunk[correlations >= _CORRELATION]
        for row, other in zip(first[chunk], second[chunk], strict=True):
            low, high = sorted(_roots(parents, np.array([row, other])))
            parents[high] = low


def _roots(parents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The row by which each row's group is known: two rows have the same one if they are joined."""
    while (parents[rows] != rows).any():
        parents[rows] = rows = parents[parents[rows]]
    return rows


def _group(rows: np.ndarray, photos: Sequence[Photo], embeddings: np.ndarray) -> DuplicateGroup:
    kept = max(rows, key=lambda row: (photos[row].bytes, -row))
    cosines = normalized(embeddings[rows]) @ normalized(embeddings[kept : kept + 1])[0]
    order = sorted(range(len(rows)), key=lambda place: (rows[place] != kept, -cosines[place]))
    return DuplicateGroup(rows[order].tolist(), cosines[order].tolist())


def _coarse(pictures: np.ndarray) -> np.ndarray:
    """Vectors of length 1, `[n, 33]`, of pictures in 8 x 8 pixels; a mirrored one has the same."""
    size = _PICTURE // _COARSE
    coarse = np.empty((len(pictures), _COARSE * _COARSE // 2 + 1), np.float32)
    for start in range(0, len(pictures), BLOCK_ROWS):
        block = pictures[start : start + BLOCK_ROWS].astype(np.float32)
        block = block.reshape(-1, _COARSE, size, _COARSE, size).mean(axis=(2, 4))
        block += block[:, :, ::-1].copy()
        coarse[start : start + BLOCK_ROWS] = _standardized(block[:, :, : _COARSE // 2] / 2)
    return coarse


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The largest correlation of pairs of pictures, of which one is whole: float32 `[pairs]`.

    Args:
        first: float32 `[pairs, crops, 257]`, of `_crops`.
        second: as `first`.
    """
    return np.maximum(
        np.einsum("pd,pcd->pc", first[:, 0], second).max(axis=1),
        np.einsum("pd,pcd->pc", second[:, 0], first).max(axis=1),
    )


def _crops(pictures: np.ndarray) -> np.ndarray:
    """Vectors of length 1, `[n, crops, 257]`, of each crop of pictures in 16 x 16 pixels."""
    sides = np.concatenate([_side_matrix(start, length) for start, length in _SIDES])
    crops = sides @ (pictures.astype(np.float32) @ sides.T)
    crops = crops.reshape(len(pictures), len(_SIDES), _CROP, len(_SIDES), _CROP)
    return _standardized(np.stack([crops[:, y, :, x] for y, x in _CROPS], axis=1))


def _side_matrix(start: float, length: float) -> np.ndarray:
    """Averages the 32 pixels of a side, of which a crop has a part, to 16: float32 `[16, 32]`."""
    edges = (start + length * np.linspace(0.0, 1.0, _CROP + 1))[:, None] * _PICTURE
    pixels = np.arange(_PICTURE)
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.clip(overlap, 0, None) / (length * _PICTURE / _CROP)).astype(np.float32)


def _standardized(pictures: np.ndarray) -> np.ndarray:
    """Vectors of length 1 `[..., h * w + 1]`, whose product is nearly the correlation of pictures.

    The last number is the same for all, so that two flat pictures are alike whatever their noise.
    """
    vectors = pictures.reshape(*pictures.shape[:-2], -1)
    vectors = vectors - vectors.mean(axis=-1, keepdims=True)
    flat = np.full((*vectors.shape[:-1], 1), _FLAT * vectors.shape[-1] ** 0.5, np.float32)
    vectors = np.concatenate([vectors, flat], axis=-1)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
