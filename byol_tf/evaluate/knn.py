"""Nearest-neighbour accuracy on frozen features: nothing is fitted, so it follows the
representation closely."""

import numpy as np

_BLOCK_BYTES = 2**28
"""What a block of queries and one of training features may take together: of 2,048 numbers each,
1,365 of either are in one."""
_BYTES_A_NUMBER = 8 + 8 + 8  # float64, and what its row's length is computed from
_BYTES_A_PAIR = 4 * 8  # a cosine twice, its place, and that in the partial sort


def knn_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    neighbours: int = 20,
    temperature: float | None = 0.07,
) -> float:
    """Accuracy of a vote of the nearest training features by cosine, each with weight exp(cosine /
    temperature) (Wu et al. 2018, 3.4).

    Queries and training features are taken in blocks, so that above the features memory is a block
    whatever their number. Cosines are float64: those of a nearly collapsed encoder are all so near
    1 that float32 mixes up the order.

    Args:
        train, test: features, float `[n, d]`.
        train_labels, test_labels: int `[n]`.
        neighbours: k; at most the number of training features is used.
        temperature: how fast a vote fades with distance; None: each of the k has one vote. Of equal
            votes the smaller class wins.

    Returns:
        The fraction of test labels that are right.
    """
    classes, neighbours = int(train_labels.max()) + 1, min(neighbours, len(train))
    queries, references = _block_sizes(train.shape[1], neighbours)
    right = 0
    for first in range(0, len(test), queries):
        cosines, places = _nearest(
            _directions(test[first : first + queries]), train, neighbours, references
        )
        votes = _votes(cosines, temperature)
        rows = np.repeat(np.arange(len(cosines)) * classes, neighbours)
        sums = np.bincount(
            rows + train_labels[places].ravel(), votes.ravel(), len(cosines) * classes
        )
        right += np.count_nonzero(
            sums.reshape(-1, classes).argmax(axis=1) == test_labels[first : first + queries]
        )
    return right / len(test)


def _block_sizes(width: int, neighbours: int) -> tuple[int, int]:
    """(queries, training features) in a block: a quarter of its bytes for either, half for their
    pairs and the nearest so far."""
    rows, pairs = _BLOCK_BYTES // 4 // (_BYTES_A_NUMBER * width), _BLOCK_BYTES // 2 // _BYTES_A_PAIR
    queries = max(1, min(rows, pairs // (2 * neighbours)))
    return queries, max(1, min(rows, pairs // queries - neighbours))


def _nearest(
    queries: np.ndarray, train: np.ndarray, neighbours: int, block: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cosines float64 `[q, k]` and places int `[q, k]` of each query's nearest, in no order; block
    by block."""
    cosines, places = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for first in range(0, len(train), block):
        new = queries @ _directions(train[first : first + block]).T
        cosines = np.concatenate([cosines, new], axis=1)
        places = np.concatenate(
            [places, np.broadcast_to(np.arange(first, first + new.shape[1]), new.shape)], axis=1
        )
        if (beyond := cosines.shape[1] - neighbours) > 0:
            nearest = np.argpartition(cosines, beyond, axis=1)[:, beyond:]
            cosines, places = (
                np.take_along_axis(cosines, nearest, axis=1),
                np.take_along_axis(places, nearest, axis=1),
            )
    return cosines, places


def _directions(features: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float64; a row of zeros stays as it is."""
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features /= np.where(lengths == 0.0, 1.0, lengths)
    return features


def _votes(cosines: np.ndarray, temperature: float | None) -> np.ndarray:
    if temperature is None:
        return np.ones_like(cosines)
    # As shares of the nearest one's vote: exp(1 / temperature) itself overflows below 0.0014.
    return np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)


_BLOCK = 16_384


def nearest(
    embeddings: np.ndarray, query: np.ndarray, count: int, without: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the largest cosine to a query.

    Cosines are float64: those of a nearly collapsed encoder are all so near 1 that float32 mixes up
    the order.

    Args:
        embeddings: float `[n, d]`.
        query: float `[d]`.
        count: at most so many.
        without: a row that is left out, since it is the query.

    Returns:
        (rows int64 `[k]`, cosines float64 `[k]`), descending; of equals the earlier row first.
    """
    query = query.astype(np.float64)
    cosines = np.empty(len(embeddings))
    for first in range(0, len(embeddings), _BLOCK):
        block = embeddings[first : first + _BLOCK].astype(np.float64)
        lengths = np.linalg.norm(block, axis=1) * np.linalg.norm(query)
        cosines[first : first + _BLOCK] = block @ query / np.where(lengths == 0.0, 1.0, lengths)
    if without is not None:
        cosines[without] = -np.inf
    order = np.argsort(-cosines, kind="stable")[
        : min(count, len(embeddings) - (without is not None))
    ]
    return order, cosines[order]
