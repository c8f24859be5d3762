"""Accuracy among the first k."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """The fraction of images whose label is among the k highest scores; of equal scores the smaller class goes first, as with argmax.

    Args:
        scores: float `[n, classes]`. A row with NaN is wrong, so that a diverged classifier never wins, and so is a label whose score is
            -inf: a class that was not learned.
        labels: int `[n]`, below `classes`.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    smaller = np.arange(scores.shape[1]) < labels[:, None]
    ahead = np.count_nonzero((scores > own) | ((scores == own) & smaller), axis=1)
    valid = np.isfinite(own[:, 0]) & ~np.isnan(scores).any(axis=1)
    return float(np.mean((ahead < k) & valid))


def top_1_and_5(scores: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """`top1` and `top5`; the latter is None where there are five classes or fewer, all of which would be right."""
    return {"top1": top_k_accuracy(scores, labels), "top5": top_k_accuracy(scores, labels, 5) if scores.shape[1] > 5 else None}
