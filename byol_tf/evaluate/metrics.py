"""Accuracy among the first k."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """The fraction of images whose label is among the k highest scores; of equal scores the smaller
    class goes first, as with argmax.

    Args:
        scores: float `[n, classes]`. A row with NaN is wrong, so that a diverged classifier never
            wins, and so is a label whose score is -inf: a class that was not learned.
        labels: int `[n]`, below `classes`.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    smaller = np.arange(scores.shape[1]) < labels[:, None]
    ahead = np.count_nonzero((scores > own) | ((scores == own) & smaller), axis=1)
    valid = np.isfinite(own[:, 0]) & ~np.isnan(scores).any(axis=1)
    return float(np.mean((ahead < k) & valid))


def top_1_and_5(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """`top1` and `top5`; the latter is None where there are five classes or fewer, all of which
    would be right."""
    return {
        "top1": top_k_accuracy(scores, labels),
        "top5": top_k_accuracy(scores, labels, 5) if scores.shape[1] > 5 else None,
    }


def effective_rank(vectors: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of the centred vectors (Roy and Vetterli
    2007).

    Args:
        vectors: float `[n, d]`, n of at least 2.

    Returns:
        From 1 (all on one line) to min(n - 1, d); 1 also when all vectors are the same.
    """
    shares = spectrum(vectors)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 1.0


def spectrum(vectors: np.ndarray) -> np.ndarray:
    """The singular values of the centred vectors as shares of their sum, descending; all 0 when all
    vectors are the same.

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
