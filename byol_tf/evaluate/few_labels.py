"""Logistic regression on a few labels, and the linear layer that is the same classifier."""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluate.logistic import fit_logistic

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of scikit-learn's C to try; small is strong regularisation."""
_DEFAULT_STRENGTH = 1e-1
"""The C where no label can be held out; the best with 3 and with 10 labels per class of photos."""
_FOLDS, _ITERATIONS = 5, 500


def fit_few_labels(features: np.ndarray, targets: np.ndarray, seed: int) -> Pipeline:
    """Fits logistic regression with the strength under which held-out labels are most probable.

    Classes are weighted equally however many labels they have: a handful tells little about their
    frequency.

    Args:
        features: standardised, float `[n, d]`.
        targets: int `[n]`, of two classes or more.
        seed: of the folds.
    """
    folds = label_folds(targets, seed)

    def log_likelihood(strength: float) -> float:
        return sum(_held_out_log_likelihood(features, targets, fold, strength) for fold in folds)

    best = max(_STRENGTHS, key=log_likelihood) if folds else _DEFAULT_STRENGTH
    return _fit_strength(features, targets, best)


def _held_out_log_likelihood(
    features: np.ndarray, targets: np.ndarray, fold: np.ndarray, strength: float
) -> float:
    model = _fit_strength(features[~fold], targets[~fold], strength)
    columns = np.searchsorted(model.classes_, targets[fold])
    return float(model.predict_log_proba(features[fold])[np.arange(len(columns)), columns].sum())


def _fit_strength(features: np.ndarray, targets: np.ndarray, strength: float) -> Pipeline:
    return fit_logistic(
        features, targets, strength, _ITERATIONS, standardize=False, class_weight="balanced"
    )


def label_folds(targets: np.ndarray, seed: int) -> list[np.ndarray]:
    """Returns masks of the labels to hold out, bool `[n]`: each label once but a class's only one.

    There are none where fewer than two classes have two labels.
    """
    counts = np.bincount(targets)
    if np.count_nonzero(counts > 1) < 2:
        return []
    candidates = np.flatnonzero(counts[targets] > 1)
    splitter = StratifiedKFold(min(_FOLDS, counts.max()), shuffle=True, random_state=seed)
    folds = []
    with warnings.catch_warnings():
        # A class with fewer labels than folds has each of them in another fold.
        warnings.filterwarnings("ignore", "The least populated class")
        for _, held_out in splitter.split(candidates, targets[candidates]):
            folds.append(np.zeros(len(targets), bool))
            folds[-1][candidates[held_out]] = True
    return folds


def linear_layer(scaler: StandardScaler, model: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel `[d, classes]` and bias `[classes]` of the layer that does what both do.

    Args:
        scaler: standardises features.
        model: of `fit_few_labels`, fitted on standardised ones.
    """
    weights, intercepts = model[-1].coef_, model[-1].intercept_
    if len(weights) == 1:  # of two classes scikit-learn has the second one's logit
        weights = np.concatenate([np.zeros_like(weights), weights])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    kernel = (weights / scaler.scale_).T
    return kernel, intercepts - scaler.mean_ @ kernel
