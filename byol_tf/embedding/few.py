"""A classifier from a handful of labels on frozen embeddings, and an honest guess at how good it is. Needs no TensorFlow."""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from threadpoolctl import threadpool_limits

_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of scikit-learn's C that are tried; small is strong regularisation."""
_DEFAULT_STRENGTH = 1e-2  # where no class can spare a label to choose by: between the ends of those above
_FOLDS, _ITERATIONS = 5, 500


@dataclass(frozen=True)
class Estimate:
    """How often the classifier is right about labels that it hasn't seen, by cross-validation.

    Attributes:
        right, of: labels that were guessed right, and all of them: each was guessed by a classifier that learned from the others.
        low, high: a 95% interval for the share (Wilson's), as if labelled photos had been drawn at random from all.
        commonest: share of the commonest class, which always guessing it would get.
        folds: of the cross-validation.
    """

    right: int
    of: int
    low: float
    high: float
    commonest: float
    folds: int


@dataclass(frozen=True)
class Few:
    """What a few labels let expect of all photos.

    Attributes:
        classes: ascending.
        probabilities: float64 `[n, classes]`, of each photo.
        estimate: None where a class has a single label.
    """

    classes: list[str]
    probabilities: np.ndarray
    estimate: Estimate | None


def few_labels(embeddings: np.ndarray, labels: dict[int, str], seed: int = 0) -> Few:
    """Fits logistic regression on the labelled rows and applies it to all.

    Features are standardised by all photos, labelled or not. The strength of regularisation is chosen by the log loss of held-out labels,
    anew for each part of the cross-validation, so that the estimate counts only labels that chose nothing.

    Args:
        embeddings: float `[n, d]`.
        labels: row -> class, of two classes or more.
        seed: of the folds.
    """
    deviation = embeddings.std(axis=0, dtype=np.float64)
    features = (embeddings - embeddings.mean(axis=0, dtype=np.float64)) / np.where(deviation > 0.0, deviation, 1.0)
    rows = np.array(sorted(labels))
    names, numbers = np.unique([labels[row] for row in rows], return_inverse=True)
    with threadpool_limits(1):  # hundreds of tiny fits: threads that wait for each other made them six times as slow on two busy cores
        model = _fitted(features[rows], numbers, seed)
        return Few([str(name) for name in names], model.predict_proba(features), _estimate(features[rows], numbers, seed))


def _estimate(features: np.ndarray, numbers: np.ndarray, seed: int) -> Estimate | None:
    counts = np.bincount(numbers)
    if counts.min() < 2:
        return None
    folds = StratifiedKFold(min(_FOLDS, counts.min()), shuffle=True, random_state=seed)
    right = 0
    for learned, held in folds.split(features, numbers):
        right += int(np.count_nonzero(_fitted(features[learned], numbers[learned], seed).predict(features[held]) == numbers[held]))
    interval = binomtest(right, len(numbers)).proportion_ci(method="wilson")
    return Estimate(right, len(numbers), float(interval.low), float(interval.high), counts.max() / len(numbers), folds.get_n_splits())


def _fitted(features: np.ndarray, numbers: np.ndarray, seed: int):
    """A classifier, its strength chosen by cross-validation where each class has labels for that."""
    least = np.bincount(numbers)[np.unique(numbers)].min()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last tenth of a point isn't what few labels can give
        if least < 2:
            return LogisticRegression(C=_DEFAULT_STRENGTH, max_iter=_ITERATIONS).fit(features, numbers)
        folds = StratifiedKFold(min(_FOLDS, least), shuffle=True, random_state=seed)
        search = GridSearchCV(LogisticRegression(max_iter=_ITERATIONS), {"C": _STRENGTHS}, scoring="neg_log_loss", cv=folds)
        return search.fit(features, numbers)
