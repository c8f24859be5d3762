"""Logistic regression on frozen features (STL-10 paper, section 3.4; BYOL paper, appendix D.2)."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from byol_tf.evaluate.metrics import mean_per_class_accuracy, top_1_and_5, top_k_accuracy
from byol_tf.runs.splits import stratified_folds

STRENGTHS = tuple(float(f"{10.0**exponent:.2g}") for exponent in np.arange(-4.0, 1.5, 0.5))
"""Values of scikit-learn's C to try, half a power of ten apart; small is strong regularisation."""
TRANSFER_STRENGTHS = tuple(float(strength) for strength in np.logspace(-5.0, 6.0, 45))
"""Values of C of the BYOL paper's transfer protocol: 1 over its 45 weights of the L2 penalty,
logarithmically spaced from 1e-6 to 1e5."""
_SMALL_FIT = 2**22  # numbers
_PROBE_ITERATIONS = 200
"""A probe runs after many epochs: a comparable figure in seconds, not the last tenth of a point."""
_ITERATIONS = 1000
_HELD_OUT_IMAGES = 2000
"""Held-out images that choose a strength, where there are as many: with 200 of them the choice is
off by several points by chance."""


def fit_logistic(
    features: np.ndarray,
    labels: np.ndarray,
    strength: float = 1.0,
    max_iter: int = _ITERATIONS,
    *,
    standardize: bool = True,
    class_weight: str | None = None,
) -> Pipeline:
    """Fits scikit-learn's logistic regression; not converging raises no warning.

    Args:
        features: float `[n, d]`.
        labels: int `[n]`, of at least two classes.
        strength: scikit-learn's C, the inverse strength of regularisation.
        max_iter: iterations of L-BFGS, at most.
        standardize: whether the pipeline begins with a `StandardScaler`.
        class_weight: as in `LogisticRegression`.

    Returns:
        The fitted pipeline; its last step is the `LogisticRegression`.
    """
    classifier = LogisticRegression(C=strength, max_iter=max_iter, class_weight=class_weight)
    pipeline = make_pipeline(*([StandardScaler()] if standardize else []), classifier)
    with threads_for(features), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return pipeline.fit(features, labels)


def threads_for(features: np.ndarray) -> threadpool_limits:
    """A context in which linear algebra on fewer than four million numbers takes one thread.

    Threads wait for each other after each of a fit's hundreds of iterations: on two cores shared
    with other programs, eleven fits of 1,000 x 96 features took 7 s with threads, 0.24 s without.
    Large features keep the threads of the process.

    Args:
        features: float `[n, d]`.
    """
    return threadpool_limits(1 if features.size < _SMALL_FIT else None)


def linear_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> float:
    """The fraction of test labels, int `[m]`, that `linear_predictions` predicts."""
    return float(np.mean(linear_predictions(train, train_labels, test) == test_labels))


def linear_predictions(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Fits the probe's logistic regression and applies it.

    Args:
        train: features, float `[n, d]`.
        train_labels: int `[n]`.
        test: features, float `[m, d]`.

    Returns:
        Predicted labels, int `[m]`.
    """
    return fit_logistic(train, train_labels, max_iter=_PROBE_ITERATIONS).predict(test)


def logistic_protocol(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    standardize: bool = True,
) -> dict:
    """Chooses C on held-out training labels, then fits on all of them.

    A fifth of each class is held out. Where that is fewer than 2,000 images, further fifths are in
    turn, up to all five: cross-validation.

    Args:
        train: features, float `[n, d]`.
        train_labels: int `[n]`.
        test: features, float `[m, d]`.
        test_labels: int `[m]`.
        seed: decides which images are held out.
        strengths: values of C to try; of equally accurate ones the first wins. A single one is used
            as it is.
        standardize: whether features are standardised, by the training features' means and
            deviations.

    Returns:
        `top1` and `top5` (see `top_1_and_5`), `mean_per_class`, `C`, `held_out_accuracy` of each C
        over the `held_out_images`, and whether the last fit `converged`.

    Raises:
        ProtocolError: if no class has two images, so that none can be held out.
    """
    classes = int(max(train_labels.max(), test_labels.max())) + 1
    best, accuracies, held_out_images = strengths[0], {}, 0
    if len(strengths) > 1:
        folds = stratified_folds(train_labels, seed)
        folds = folds[: np.searchsorted(np.cumsum(folds.sum(axis=1)), _HELD_OUT_IMAGES) + 1]
        held_out_images = int(folds.sum())
        accuracies = {
            strength: _held_out_accuracy(train, train_labels, strength, folds, classes, standardize)
            for strength in strengths
        }
        best = max(strengths, key=lambda strength: accuracies[strength])
    model = fit_logistic(train, train_labels, best, standardize=standardize)
    scores = _scores(model, test, classes)
    return {
        **top_1_and_5(scores, test_labels),
        "mean_per_class": mean_per_class_accuracy(scores, test_labels),
        "C": best,
        "held_out_images": held_out_images,
        "held_out_accuracy": {f"{strength:g}": value for strength, value in accuracies.items()},
        "converged": bool(np.max(model[-1].n_iter_) < _ITERATIONS),
    }


def _held_out_accuracy(
    features: np.ndarray,
    labels: np.ndarray,
    strength: float,
    folds: np.ndarray,
    classes: int,
    standardize: bool,
) -> float:
    """Top-1 over all folds, each predicted by a model of the other images."""
    correct = 0.0
    for fold in folds:
        model = fit_logistic(features[~fold], labels[~fold], strength, standardize=standardize)
        scores = _scores(model, features[fold], classes)
        correct += fold.sum() * top_k_accuracy(scores, labels[fold])
    return correct / folds.sum()


def _scores(model: Pipeline, features: np.ndarray, classes: int) -> np.ndarray:
    """Logits `[n, classes]`; -inf for a class without a training image."""
    logits = model.decision_function(features)
    if logits.ndim == 1:  # of two classes scikit-learn returns the second one's
        logits = np.stack([np.zeros_like(logits), logits], axis=1)
    scores = np.full((len(features), classes), -np.inf)
    scores[:, model.classes_] = logits
    return scores
