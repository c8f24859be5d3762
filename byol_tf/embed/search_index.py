"""An approximate index of embeddings (HNSW, by usearch), and its recall."""

import importlib.util
import logging
import os
from typing import TYPE_CHECKING

import numpy as np

from byol_tf.embed.photos import progress_bar
from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError
from byol_tf.evaluate.knn import nearest_neighbours
from byol_tf.logs import counted
from byol_tf.runs.files import temporary_path
from pipelines.extras import install_line

if TYPE_CHECKING:
    from usearch.index import Index

_ADDED_ROWS = 8_192  # at once: progress and Ctrl-C come in between
_SEARCHED = 1_024
"""Candidates of a search. Of a million photos 64, usearch's own number, find 69% of the nearest,
and these 96% (docs/results/embed-scale.md)."""
_RECALL_QUERIES = 256
_SAME_COSINE = 1e-9  # cosines of blocks of other sizes differ by rounding

logger = logging.getLogger(__name__)


def check_usearch() -> None:
    """Raises `EmbedError` if usearch isn't installed."""
    if importlib.util.find_spec("usearch") is None:
        raise EmbedError(f"--index: needs usearch: {install_line('search-index')}")


def open_index(store: Store) -> "Index":
    """Opens the index of the stored embeddings, `embeddings.usearch`; builds it if there is none.

    A key is a row of `embeddings.npy`. Vectors are read from the file as they are used. Building
    takes the memory of a copy of them, and all cores, which makes each index slightly different.

    Args:
        store: after `write`, which removes the file when the embeddings change.

    Raises:
        EmbedError: if the disk refuses, or the file is no index.
    """
    from usearch.index import Index

    path = store.search_index
    if not path.exists():
        with store.writing():
            temporary = temporary_path(path)
            build_index(store.load()).save(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    try:
        index = Index.restore(path, view=True, expansion_search=_SEARCHED)
    except (ValueError, RuntimeError):
        index = None
    if index is None:
        raise EmbedError(f"{path}: expected an index that usearch can read; remove it")
    return index


def build_index(embeddings: np.ndarray) -> "Index":
    """Builds an index whose keys are the rows of embeddings, float32 `[n, d]`."""
    from usearch.index import Index

    logger.info("building the index of %s", counted(len(embeddings), "embedding"))
    index = Index(ndim=embeddings.shape[1], metric="cos", dtype="f32")
    with progress_bar("embeddings") as bar:
        task = bar.add_task("", total=len(embeddings))
        for start in range(0, len(embeddings), _ADDED_ROWS):
            rows = np.asarray(embeddings[start : start + _ADDED_ROWS])
            index.add(np.arange(start, start + len(rows), dtype=np.uint64), rows)
            bar.advance(task, len(rows))
    return index


def search(
    index: "Index", queries: np.ndarray, embeddings: np.ndarray, k: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Finds embeddings with a large cosine to each query.

    Args:
        index: of the embeddings.
        queries: float32 `[q, d]`.
        embeddings: float32 `[n, d]`.
        k: largest number of neighbours.

    Returns:
        For each query its neighbours, int64 `[k]` or fewer, and their cosines, float64, descending
        and as `nearest_neighbours` computes them.
    """
    results = []
    for query in queries:  # one at a time, as usearch returns another type for a batch of one
        rows = np.sort(index.search(query, k).keys.astype(np.int64))
        order, cosines = nearest_neighbours(query[None], embeddings[rows], k)
        results.append((rows[order[0]], cosines[0]))
    return results


def measure_recall(index: "Index", embeddings: np.ndarray, k: int) -> float:
    """Returns which fraction of the true k nearest neighbours the index finds.

    The queries are 256 random rows. One that is as near as the k-th true one counts as found.
    """
    rows = np.random.default_rng(0).permutation(len(embeddings))[:_RECALL_QUERIES]
    queries = np.asarray(embeddings[rows])
    _, exact = nearest_neighbours(queries, embeddings, k, exclude=rows)
    if not exact.size:
        return 1.0
    found = 0
    for row, (indices, cosines), nearest in zip(
        rows, search(index, queries, embeddings, k + 1), exact, strict=True
    ):
        others = cosines[indices != row][: len(nearest)]
        found += int(np.count_nonzero(others >= nearest[-1] - _SAME_COSINE))
    return found / exact.size
