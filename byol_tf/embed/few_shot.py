"""A classifier from a handful of labels on frozen embeddings, and an honest guess at how good it
is. Needs no TensorFlow."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of scikit-learn's C that are tried; small is strong regularisation."""
# where no class can spare a label to choose by: what did best with 3 and with 10 labels a class of
# photos
_DEFAULT_STRENGTH = 1e-1
_FOLDS, _ITERATIONS = 5, 500
# rows that are float64 at once: of a million photos they would take four times the memory of their
# embeddings
_BLOCK = 4_096


@dataclass(frozen=True)
class Estimate:
    """How often the classifier is right about labels that it hasn't seen, by cross-validation.

    Attributes:
        right, of: labels that were guessed right, and those that were guessed: each by a classifier
            that learned from others. The only label of a class can't be one of them.
        low, high: a 95% interval for the share (Wilson's), as if labelled photos had been drawn at
            random from all.
        commonest: share of the commonest class among those, which always guessing it would get.
        folds: of the cross-validation.
    """

    right: int
    of: int
    low: float
    high: float
    commonest: float
    folds: int


@dataclass(frozen=True)
class FewShotResult:
    """What a few labels let expect of all photos.

    Attributes:
        classes: ascending.
        probabilities: float64 `[n, classes]`, of each photo.
        alone: classes with a single label.
        estimate: None where fewer than two classes have two labels.
    """

    classes: list[str]
    probabilities: np.ndarray
    alone: list[str]
    estimate: Estimate | None


def fit_few_shot(embeddings: np.ndarray, labels: dict[int, str], seed: int = 0) -> FewShotResult:
    """Fits logistic regression on the labelled rows and applies it to all.

    Features are standardised by all photos, labelled or not. All classes weigh the same, however
    many labels they have: a handful says little about how frequent they are. The strength of
    regularisation is chosen by the probability of held-out labels, anew for each part of the
    cross-validation, so that the estimate counts only labels that chose nothing.

    Args:
        embeddings: float `[n, d]`.
        labels: row -> class, of two classes or more.
        seed: of the folds.
    """
    blocks = [slice(first, first + _BLOCK) for first in range(0, len(embeddings), _BLOCK)]
    mean = embeddings.mean(axis=0, dtype=np.float64)
    deviation = np.sqrt(
        sum(((embeddings[block] - mean) ** 2).sum(axis=0) for block in blocks) / len(embeddings)
    )
    scale = np.where(deviation > 0.0, deviation, 1.0)
    rows = np.array(sorted(labels))
    names, numbers = np.unique([labels[row] for row in rows], return_inverse=True)
    features = (embeddings[rows] - mean) / scale
    # Hundreds of tiny fits: threads that wait for each other made them six times as slow on two
    # busy cores.
    with threadpool_limits(1):
        model = _fitted(features, numbers, seed)
        probabilities = np.concatenate(
            [model.predict_proba((embeddings[block] - mean) / scale) for block in blocks]
        )
        alone = [
            str(name) for name, count in zip(names, np.bincount(numbers), strict=True) if count == 1
        ]
        return FewShotResult(
            [str(name) for name in names], probabilities, alone, _estimate(features, numbers, seed)
        )


def _estimate(features: np.ndarray, numbers: np.ndarray, seed: int) -> Estimate | None:
    splits = _splits(numbers, seed)
    if not splits:
        return None
    guessed = np.concatenate([held for _, held in splits])
    right = sum(
        int(
            np.count_nonzero(
                _fitted(features[learned], numbers[learned], seed).predict(features[held])
                == numbers[held]
            )
        )
        for learned, held in splits
    )
    interval = binomtest(right, len(guessed)).proportion_ci(method="wilson")
    commonest = float(np.bincount(numbers[guessed]).max() / len(guessed))
    return Estimate(
        right, len(guessed), float(interval.low), float(interval.high), commonest, len(splits)
    )


def _fitted(features: np.ndarray, numbers: np.ndarray, seed: int) -> LogisticRegression:
    """A classifier, its strength chosen by cross-validation where classes have labels for that."""
    best, splits = _DEFAULT_STRENGTH, _splits(numbers, seed)
    if splits:
        best = max(
            _STRENGTHS,
            key=lambda strength: sum(
                _log_probability(features, numbers, *split, strength) for split in splits
            ),
        )
    return _regression(features, numbers, best)


def _log_probability(
    features: np.ndarray,
    numbers: np.ndarray,
    learned: np.ndarray,
    held: np.ndarray,
    strength: float,
) -> float:
    """Sum over held-out labels of the logarithm of what they were given."""
    model = _regression(features[learned], numbers[learned], strength)
    columns = np.searchsorted(model.classes_, numbers[held])
    return float(model.predict_log_proba(features[held])[np.arange(len(held)), columns].sum())


def _regression(features: np.ndarray, numbers: np.ndarray, strength: float) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # the last tenth of a point isn't what few labels can give
        return LogisticRegression(C=strength, class_weight="balanced", max_iter=_ITERATIONS).fit(
            features, numbers
        )


def _splits(numbers: np.ndarray, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to learn from, rows held out), at most five times. Of each class some stay to be
    learned from, so single ones always do.

    Empty where fewer than two classes have two rows.
    """
    counts = np.bincount(numbers)
    shared = np.flatnonzero(counts[numbers] > 1)
    if len(np.unique(numbers[shared])) < 2:
        return []
    folds = StratifiedKFold(min(_FOLDS, counts[counts > 1].min()), shuffle=True, random_state=seed)
    return [
        (np.setdiff1d(np.arange(len(numbers)), shared[held]), shared[held])
        for _, held in folds.split(shared, numbers[shared])
    ]
