"""Cosine nearest neighbours: the search, and classification by their vote."""

import numpy as np

_BLOCK_BYTES = 2**28
"""Working memory of a search. Of features of 2,048 numbers, 1,365 queries and as many database rows
are in a block."""
_BYTES_PER_NUMBER = 3 * 8  # a feature in float64, and the temporaries of its row's norm
_BYTES_PER_PAIR = 5 * 8  # a cosine twice, its index, its copy in the partition, and masks


def nearest_neighbours(
    queries: np.ndarray, database: np.ndarray, k: int, exclude: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows of a database with the largest cosine to each query.

    Cosines are computed in float64: those of a nearly collapsed encoder are all so close to 1 that
    float32 changes their order. Queries and database are processed in blocks, so that memory beyond
    arguments and results doesn't grow with their number.

    Args:
        queries: float `[q, d]`.
        database: float `[n, d]`. The cosine to a row of zeros is 0.
        k: number of neighbours; where the database has fewer rows, all of them are returned.
        exclude: int `[q]`, for each query a row of the database that is not its neighbour, such as
            the query itself.

    Returns:
        `(indices, cosines)`, int64 and float64 `[q, k]`, by descending cosine; of equal cosines the
        smaller index comes first.

    Example:
        >>> database = np.eye(3)
        >>> nearest_neighbours(database[:1], database, k=1, exclude=np.array([0]))
        (array([[1]]), array([[0.]]))
    """
    k = min(k, len(database) - (exclude is not None))
    indices, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k))
    query_rows, database_rows = _block_sizes(database.shape[1], k)
    for first in range(0, len(queries), query_rows):
        block = slice(first, first + query_rows)
        indices[block], cosines[block] = _search_block(
            _normalized(queries[block]),
            database,
            k,
            None if exclude is None else exclude[block],
            database_rows,
        )
    return indices, cosines


def knn_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    neighbours: int = 20,
    temperature: float | None = 0.07,
) -> float:
    """Accuracy of the weighted vote of the nearest training features.

    Each neighbour votes for its class with weight exp(cosine / temperature) (Wu et al. 2018,
    "Unsupervised feature learning via non-parametric instance discrimination", section 3.4).

    Args:
        train: features, float `[n, d]`.
        train_labels: int `[n]`.
        test: features, float `[m, d]`.
        test_labels: int `[m]`.
        neighbours: number of votes, at most n.
        temperature: the lower, the faster a vote fades with distance. None weighs all votes the
            same. Of classes with equal votes the smallest wins.

    Returns:
        The fraction of test labels that are predicted.
    """
    classes, neighbours = int(train_labels.max()) + 1, min(neighbours, len(train))
    query_rows, _ = _block_sizes(train.shape[1], neighbours)
    correct = 0
    for first in range(0, len(test), query_rows):
        block = slice(first, first + query_rows)
        indices, cosines = nearest_neighbours(test[block], train, neighbours)
        votes = _votes(cosines, temperature)
        rows = np.repeat(np.arange(len(votes)) * classes, neighbours)
        sums = np.bincount(
            rows + train_labels[indices].ravel(), votes.ravel(), len(votes) * classes
        )
        predictions = sums.reshape(-1, classes).argmax(axis=1)
        correct += int(np.count_nonzero(predictions == test_labels[block]))
    return correct / len(test)


def _block_sizes(width: int, k: int) -> tuple[int, int]:
    """Numbers of queries and of database rows in a block.

    A quarter of the block's bytes for the features of each, half for their pairs and the nearest so
    far.
    """
    rows = _BLOCK_BYTES // 4 // (_BYTES_PER_NUMBER * width)
    pairs = _BLOCK_BYTES // 2 // _BYTES_PER_PAIR
    query_rows = max(1, min(rows, pairs // (2 * max(1, k))))
    return query_rows, max(1, min(rows, pairs // query_rows - k))


def _search_block(
    queries: np.ndarray,
    database: np.ndarray,
    k: int,
    exclude: np.ndarray | None,
    database_rows: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Searches for normalised queries, a block of the database at a time."""
    cosines, indices = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for first in range(0, len(database), database_rows):
        block = queries @ _normalized(database[first : first + database_rows]).T
        stop = first + block.shape[1]
        if exclude is not None:
            rows = np.flatnonzero((first <= exclude) & (exclude < stop))
            block[rows, exclude[rows] - first] = -np.inf
        cosines = np.concatenate([cosines, block], axis=1)
        block_indices = np.broadcast_to(np.arange(first, stop), block.shape)
        indices = np.concatenate([indices, block_indices], axis=1)
        if cosines.shape[1] > k:
            keep = _largest(cosines, k)
            cosines, indices = cosines[keep].reshape(-1, k), indices[keep].reshape(-1, k)
    order = np.argsort(-cosines, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(cosines, order, axis=1)


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """A mask of the k largest values of each row; of equal ones the first.

    (`np.argpartition` would leave it open which of equal ones it takes.)
    """
    split = values.shape[1] - k
    smallest = np.partition(values, split, axis=1)[:, split : split + 1]
    keep = values >= smallest
    for row in np.flatnonzero(np.count_nonzero(keep, axis=1) != k):
        keep[row] = False
        keep[row, np.argsort(-values[row], kind="stable")[:k]] = True
    return keep


def _normalized(features: np.ndarray) -> np.ndarray:
    """Rows of length 1 in float64; a row of zeros stays zero."""
    features = features.astype(np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    features /= np.where(lengths == 0.0, 1.0, lengths)
    return features


def _votes(cosines: np.ndarray, temperature: float | None) -> np.ndarray:
    if temperature is None:
        return np.ones_like(cosines)
    # Relative to the nearest neighbour's vote: exp(1 / temperature) overflows below 0.0014.
    return np.exp((cosines - cosines.max(axis=1, keepdims=True)) / temperature)
