"""Linear accuracy on frozen features (STL-10 paper, section 3.4)."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from byol_tf.evaluate.metrics import top_1_and_5, top_k_accuracy
from byol_tf.evaluate.splits import HELD_OUT, held_out

_SMALL = 2**22


def threads_for(features: np.ndarray) -> threadpool_limits:
    """A context in which linear algebra on small features, fewer than four million numbers, takes
    one thread.

    Threads wait for each other after each of a fit's hundreds of steps; on two cores that other
    programs want too, eleven fits of 1,000 x 96 features took 7 s with them and 0.24 s without.
    Large ones keep as many as the process has.

    Args:
        features: float `[n, d]`.
    """
    return threadpool_limits(1 if features.size < _SMALL else None)


# a probe is run after many epochs: a comparable figure in seconds, not the last tenth of a point
_ITERATIONS = 200


def linear_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """The fraction of test labels, int `[n]`, that `linear_predictions` has right."""
    return float(np.mean(linear_predictions(train, train_labels, test) == test_labels))


def linear_predictions(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fits scikit-learn's logistic regression on standardised features and applies it.

    Args:
        train, test: features, float `[n, d]`.
        train_labels: int `[n]`.

    Returns:
        A label for each test row, int `[n]`.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS))
    with threads_for(train), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train, train_labels)
    return classifier.predict(test)


STRENGTHS = tuple(float(f"{10.0**exponent:.2g}") for exponent in np.arange(-4.0, 1.5, 0.5))
"""Values of scikit-learn's C that are tried, in steps of half a power of ten; small is strong
regularisation."""
_ITERATIONS = 1000
_ENOUGH = 2000
"""Held-out images by which a strength is chosen, where there are so many: among 200 of them chance
decides by several points."""


def logistic_protocol(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
) -> dict:
    """Tries each strength on held-out training labels, then fits the best on all of them.

    A fifth of each class is held out. Where that is less than 2,000 images, the next fifths are in
    turn, up to all five: cross-validation.

    Args:
        train, test: features, float `[n, d]`; standardised inside, by the training features' means
            and deviations.
        train_labels, test_labels: int `[n]`.
        seed: decides which images are held out.
        strengths: of C; of equals the first wins. A single one is used as it is.

    Returns:
        `top1`, `top5` (see `top_1_and_5`), `C`, `held_out_accuracy` of each strength over the
        `held_out_images`, and whether the last fit `converged`.

    Raises:
        ProtocolError: see `held_out`.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    parts = _parts(train_labels, seed) if len(strengths) > 1 else []
    tried = (
        {
            strength: _held_out_accuracy(train, train_labels, strength, parts, classes)
            for strength in strengths
        }
        if parts
        else {}
    )
    best = max(tried, key=tried.get) if tried else strengths[0]
    model = _fitted(train, train_labels, best)
    converged = bool(np.max(model[-1].n_iter_) < _ITERATIONS)
    measured = top_1_and_5(_scores(model, test, classes), test_labels)
    return measured | {
        "C": best,
        "held_out_images": int(np.sum(parts)),
        "held_out_accuracy": {f"{strength:g}": value for strength, value in tried.items()},
        "converged": converged,
    }


def _parts(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """The parts that are held out in turn."""
    parts = [held_out(labels, seed)]
    while len(parts) < round(1 / HELD_OUT) and np.sum(parts) < _ENOUGH:
        parts.append(held_out(labels, seed, turn=len(parts)))
    return [part for part in parts if part.any()]


def _held_out_accuracy(
    features: np.ndarray, labels: np.ndarray, strength: float, parts: list[np.ndarray], classes: int
) -> float:
    """Top-1 over all parts, each judged by a model that saw the other images."""
    right = 0.0
    for held in parts:
        model = _fitted(features[~held], labels[~held], strength)
        right += held.sum() * top_k_accuracy(_scores(model, features[held], classes), labels[held])
    return right / np.sum(parts)


def _fitted(features: np.ndarray, labels: np.ndarray, strength: float) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_ITERATIONS))
    with threads_for(features), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result says it
        return model.fit(features, labels)


def _scores(model: Pipeline, features: np.ndarray, classes: int) -> np.ndarray:
    """Logits `[n, classes]`; -inf for a class that has no training image."""
    logits = model.decision_function(features)
    if logits.ndim == 1:  # of two classes scikit-learn gives the second one's
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    scores = np.full((len(features), classes), -np.inf)
    scores[:, model.classes_] = logits
    return scores
