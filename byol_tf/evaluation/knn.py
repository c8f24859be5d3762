"""Nearest-neighbour accuracy on frozen features: nothing is fitted, so it follows the representation closely."""

import numpy as np

_BLOCK_BYTES = 2**28
"""What a block of queries may take: with 100,000 training features a block has 167 queries."""
_BYTES_A_PAIR = 8 + 8  # a cosine and its place in the partial sort


def knn_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    neighbours: int = 20,
    temperature: float | None = 0.07,
) -> float:
    """Accuracy of a vote of the nearest training features by cosine, each with weight exp(cosine / temperature) (Wu et al. 2018, 3.4).

    Queries are taken in blocks, so memory doesn't grow with their number: above the features it is a normalised copy of the training ones
    and a block. Cosines are float64: those of a nearly collapsed encoder are all so near 1 that float32 mixes up the order.

    Args:
        train, test: features, float `[n, d]`.
        train_labels, test_labels: int `[n]`.
        neighbours: k; at most the number of training features is used.
        temperature: how fast a vote fades with distance; None: each of the k has one vote. Of equal votes the smaller class wins.

    Returns:
        The fraction of test labels that are right.
    """
    train, classes = _directions(train), int(train_labels.max()) + 1
    neighbours = min(neighbours, len(train))
    block = max(1, _BLOCK_BYTES // (_BYTES_A_PAIR * len(train)))
    right = 0
    for first in range(0, len(test), block):
        cosines = _directions(test[first : first + block]) @ train.T
        nearest = np.argpartition(cosines, len(train) - neighbours, axis=1)[:, len(train) - neighbours :]
        votes = _votes(np.take_along_axis(cosines, nearest, axis=1), temperature)
        rows = np.repeat(np.arange(len(cosines)) * classes, neighbours)
        sums = np.bincount(rows + train_labels[nearest].ravel(), votes.ravel(), len(cosines) * classes)
        right += np.count_nonzero(sums.reshape(-1, classes).argmax(axis=1) == test_labels[first : first + block])
    return right / len(test)


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
