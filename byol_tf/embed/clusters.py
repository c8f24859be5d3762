"""Clusters of photos, and the photos to label first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from byol_tf.embed.contact_sheet import Cell, short_name, write_sheet
from byol_tf.embed.photos import EmbeddedPhotos
from byol_tf.embed.similar import read_thumbnail
from byol_tf.embed.vectors import BLOCK_ROWS, normalized
from byol_tf.runs.files import write_csv

SHEET_CLUSTERS, SHEET_PICKS = 40, 120
"""Most clusters and most picked photos that a sheet shows."""
_NEAREST, _SPREAD = 4, 4  # photos of a cluster on the sheet
_PICK_COLUMNS = 10
_MAX_FIT = 100_000
"""Photos that the centres are computed from, lest a million take twice the memory."""


@dataclass(frozen=True)
class Clusters:
    """A cluster for each photo.

    Attributes:
        numbers: int64 `[n]`, the cluster of each photo, from 1, the largest cluster first.
        cosines: float32 `[n]`, of each photo to the centre of its cluster.
    """

    numbers: np.ndarray
    cosines: np.ndarray

    def members(self) -> list[np.ndarray]:
        """Returns the rows of each cluster, the nearest to its centre first."""
        order = np.lexsort((-self.cosines, self.numbers))
        return np.split(order, np.flatnonzero(np.diff(self.numbers[order])) + 1)


def find_clusters(embeddings: np.ndarray, count: int) -> Clusters:
    """Groups photos by k-means on embeddings of length 1. The same photos give the same clusters.

    Memory: 100,000 embeddings, which centres are computed from where there are more.

    Args:
        embeddings: float `[n, d]`.
        count: of clusters; there are fewer where a centre is no photo's nearest one, as with fewer
            photos that differ.

    Example:
        >>> embeddings = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]], np.float32)
        >>> find_clusters(embeddings, 2).numbers
        array([1, 2, 1])
    """
    rows = np.arange(len(embeddings))
    if len(rows) > _MAX_FIT:
        rows = np.sort(np.random.default_rng(0).choice(rows, _MAX_FIT, replace=False))
    with threadpool_limits(1):  # batches are small: more threads wait for each other
        fitted = MiniBatchKMeans(min(count, len(rows)), random_state=0, n_init=1).fit(
            normalized(embeddings[rows])
        )
    centres = normalized(fitted.cluster_centers_)
    nearest, cosines = np.empty(len(embeddings), np.int64), np.empty(len(embeddings), np.float32)
    for start in range(0, len(embeddings), BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        products = normalized(embeddings[block]) @ centres.T
        nearest[block], cosines[block] = products.argmax(axis=1), products.max(axis=1)
    sizes = np.bincount(nearest, minlength=len(centres))
    numbers = np.empty(len(centres), np.int64)
    numbers[np.argsort(-sizes, kind="stable")] = np.arange(1, len(centres) + 1)
    return Clusters(numbers[nearest], cosines)


def write_clusters(path: Path, embedded: EmbeddedPhotos, clusters: Clusters) -> None:
    """Writes a CSV file: path, cluster, cosine; each cluster's nearest to the centre first."""
    write_csv(
        path,
        ("path", "cluster", "cosine"),
        (
            (embedded.photos[row].name, clusters.numbers[row], f"{clusters.cosines[row]:.6f}")
            for rows in clusters.members()
            for row in rows
        ),
    )


def write_clusters_sheet(path: Path, embedded: EmbeddedPhotos, clusters: Clusters) -> None:
    """Draws a row for each of the first `SHEET_CLUSTERS` clusters, as a PNG.

    It has the photos nearest to the centre, then some at equal distances in the order from there to
    the farthest.
    """
    rows = []
    for rows_of_cluster in clusters.members()[:SHEET_CLUSTERS]:
        size = len(rows_of_cluster)
        places = list(range(size))
        if size > _NEAREST + _SPREAD:
            spread = np.linspace(_NEAREST, size - 1, _SPREAD + 1)[1:].astype(int).tolist()
            places = [*range(_NEAREST), *spread]
        cells = list(_cells(embedded, rows_of_cluster[places], clusters.cosines))
        number = clusters.numbers[rows_of_cluster[0]]
        rows.append([Cell(cells[0].pixels, f"cluster {number}: {size:,}", framed=True), *cells[1:]])
    title = "clusters, one a row; framed: the nearest to its centre; then the next and some farther"
    write_sheet(path, rows, title)


def pick_photos(embeddings: np.ndarray, count: int, labelled: Iterable[int] = ()) -> list[int]:
    """Picks different photos that are typical of many others, to label them first.

    They are those nearest to the centres of as many clusters, the largest cluster first; none is of
    a cluster with a labelled photo. This is TypiClust (Hacohen et al. 2022, "Active learning on a
    budget", section 3) with the cosine to the centre for how typical a photo is. k-centre, which
    picks the photo farthest from those picked before, finds outliers: labels of its photos predict
    the others no better than labels of random ones (docs/curation.md).

    Args:
        embeddings: float `[n, d]`.
        count: of photos; all that aren't labelled if there are fewer.
        labelled: rows that have a label.

    Returns:
        Their rows, in the order to label them.
    """
    done = set(labelled)
    clusters = find_clusters(embeddings, count + len(done))
    open_clusters = [rows for rows in clusters.members() if done.isdisjoint(rows.tolist())]
    picked = [int(rows[0]) for rows in open_clusters[:count]]
    # Where clusters are missing, or several labels are in one that is split: the farthest photos.
    others = (
        sorted(
            set(range(len(embeddings))) - done - set(picked),
            key=lambda row: (clusters.cosines[row], row),
        )
        if len(picked) < count
        else []
    )
    return picked + others[: count - len(picked)]


def write_pick(
    path: Path, embedded: EmbeddedPhotos, picked: Sequence[int], labels: Mapping[str, str]
) -> None:
    """Writes a CSV file for `--few`: path, label; the picked photos, then those with a label.

    Args:
        path: of the file.
        embedded: the photos.
        picked: rows.
        labels: from a photo's name to its label, as given.
    """
    rows = [(embedded.photos[row].name, "") for row in picked]
    write_csv(path, ("path", "label"), [*rows, *sorted(labels.items())])


def write_pick_sheet(path: Path, embedded: EmbeddedPhotos, picked: Sequence[int]) -> None:
    """Draws the first `SHEET_PICKS` picked photos in their order, as a PNG."""
    cells = list(_cells(embedded, picked[:SHEET_PICKS]))
    rows = [cells[i : i + _PICK_COLUMNS] for i in range(0, len(cells), _PICK_COLUMNS)]
    write_sheet(path, rows, "the photos to label first, by row")


def _cells(
    embedded: EmbeddedPhotos, rows: Iterable[int], cosines: np.ndarray | None = None
) -> Iterator[Cell]:
    for row in rows:
        photo = embedded.photos[row]
        cosine = "" if cosines is None else f"\n{cosines[row]:.3f}"
        yield Cell(read_thumbnail(embedded.images, photo), f"{short_name(photo.name)}{cosine}")
