"""Top-k accuracy of classifiers, effective rank and spectrum of representations."""

from typing import TypedDict

import numpy as np


class TopAccuracies(TypedDict):
    """Top-1 and top-5 accuracy; the latter is None where it would always be 1."""

    top1: float
    top5: float | None


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int = 1) -> float:
    """The fraction of images whose label is among the k highest scores.

    Of equal scores the smaller class comes first, as with argmax. (scikit-learn's
    `top_k_accuracy_score` prefers the larger class and rejects NaN.)

    Args:
        scores: float `[n, classes]`. A row with NaN counts as wrong, so that a diverged classifier
            is never chosen, and so does a label whose score is -inf: a class that wasn't learned.
        labels: int `[n]`, below `classes`.
        k: number of classes that count as predicted.
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    smaller = np.arange(scores.shape[1]) < labels[:, None]
    ahead = np.count_nonzero((scores > own) | ((scores == own) & smaller), axis=1)
    valid = np.isfinite(own[:, 0]) & ~np.isnan(scores).any(axis=1)
    return float(np.mean((ahead < k) & valid))


def top_1_and_5(scores: np.ndarray, labels: np.ndarray) -> TopAccuracies:
    """Top-1 and top-5 accuracy by `top_k_accuracy`; top-5 is None for at most five classes."""
    return {
        "top1": top_k_accuracy(scores, labels),
        "top5": top_k_accuracy(scores, labels, 5) if scores.shape[1] > 5 else None,
    }


def mean_per_class_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean over the classes of their images' top-1 accuracy (BYOL paper, appendix D.1).

    Args:
        scores: float `[n, classes]`, as for `top_k_accuracy`.
        labels: int `[n]`. Classes without an image don't count.
    """
    each = [
        top_k_accuracy(scores[labels == label], labels[labels == label])
        for label in np.unique(labels)
    ]
    return float(np.mean(each))


def effective_rank(vectors: np.ndarray) -> float:
    """The exponential of the entropy of `spectrum` (Roy and Vetterli 2007, "The effective rank").

    Args:
        vectors: float `[n, d]`, n of at least 2.

    Returns:
        From 1 (all vectors on one line, or all the same) to min(n - 1, d).
    """
    values = spectrum(vectors)
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum())) if len(values) else 1.0


def spectrum(vectors: np.ndarray) -> np.ndarray:
    """The singular values of the centred vectors, divided by their sum.

    Args:
        vectors: float `[n, d]`, n of at least 2.

    Returns:
        float64 `[min(n, d)]`, descending; all 0 where all vectors are the same.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values = np.linalg.svd(centred, compute_uv=False)
    total = values.sum()
    if total <= 1e-12 * max(1.0, np.abs(vectors).max()):
        return np.zeros_like(values)
    return values / total
