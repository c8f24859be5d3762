"""Which photos are alike. Needs no TensorFlow."""

import numpy as np

_BLOCK = 16_384


def nearest(embeddings: np.ndarray, query: np.ndarray, count: int, without: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the largest cosine to a query.

    Cosines are float64: those of a nearly collapsed encoder are all so near 1 that float32 mixes up the order.

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
    order = np.argsort(-cosines, kind="stable")[: min(count, len(embeddings) - (without is not None))]
    return order, cosines[order]
