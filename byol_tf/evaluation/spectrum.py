"""How many directions a set of vectors uses."""

import numpy as np


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the centred vectors (Roy and Vetterli 2007).

    Args:
        vectors: float `[n, d]`, n of at least 2.

    Returns:
        From 1 (all on one line) to min(n - 1, d); 1 also when all vectors are the same.
    """
    shares = spectrum(vectors)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 1.0


def spectrum(vectors: np.ndarray) -> np.ndarray:
    """The singular values of the centred vectors as shares of their sum, descending; all 0 when all vectors are the same.

    Args:
        vectors: float `[n, d]`, n of at least 2.

    Returns:
        float64 `[min(n, d)]`.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    total = values.sum()
    if total <= 1e-12 * max(1.0, np.abs(vectors).max()):
        return np.zeros_like(values)
    return values / total
