"""Embeddings as directions."""

import numpy as np

BLOCK_ROWS = 2_048
"""Rows that are computed with at once, lest a million photos take twice the memory."""


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """Returns rows of length 1, float32 `[n, d]`; a row of zeros stays zero."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(lengths == 0.0, 1.0, lengths)).astype(np.float32)
