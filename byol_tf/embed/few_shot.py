"""Classification of frozen embeddings from a few labels, with a cross-validated accuracy."""

import warnings
from dataclasses import dataclass

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluate.logistic import fit_logistic
from byol_tf.runs.accuracy import Accuracy, chance

_STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of scikit-learn's C to try; small is strong regularisation."""
_DEFAULT_STRENGTH = 1e-1
"""Where no label can be held out; the best with 3 and with 10 labels per class of photos."""
_FOLDS, _ITERATIONS = 5, 500
_BLOCK_ROWS = 4_096
"""Rows that are converted to float64 at once, lest a million photos take three times the memory."""


@dataclass(frozen=True)
class AccuracyEstimate:
    """A cross-validated accuracy.

    Attributes:
        correct: number of held-out labels that a classifier of the other labels predicted.
        count: number of labels that were held out; the only label of a class isn't.
        majority: accuracy of always predicting the most frequent class.
        folds: of the cross-validation.
    """

    correct: int
    count: int
    majority: float
    folds: int

    @property
    def accuracy(self) -> Accuracy:
        """Accuracy on the held-out labels.

        Its interval is that of the accuracy on all photos, if those with labels were chosen at
        random.
        """
        return Accuracy(self.correct / self.count, self.count)


@dataclass(frozen=True)
class FewShotResult:
    """Predictions for all photos.

    Attributes:
        classes: in ascending order.
        probabilities: float64 `[n, classes]`.
        kernel: float64 `[d, classes]`; with `bias`, the same classifier as a linear layer: the
            probabilities are the softmax of embedding · kernel + bias.
        bias: float64 `[classes]`.
        single_label_classes: classes with a single label, which no estimate covers.
        estimate: None where fewer than two classes have two labels.
    """

    classes: list[str]
    probabilities: np.ndarray
    kernel: np.ndarray
    bias: np.ndarray
    single_label_classes: list[str]
    estimate: AccuracyEstimate | None


def fit_few_shot(embeddings: np.ndarray, labels: dict[int, str], seed: int = 0) -> FewShotResult:
    """Fits logistic regression on the labelled rows and applies it to all rows.

    Features are standardised by all photos, labelled or not. Classes are weighted equally however
    many labels they have: a handful tells little about their frequency. The strength of
    regularisation is chosen by cross-validation, within each fold of the accuracy's estimate again,
    so that no label both chooses a strength and counts for the estimate.

    Args:
        embeddings: float `[n, d]`.
        labels: from row to class; of two classes or more.
        seed: of the folds.

    Example:
        >>> embeddings = np.array([[0.0], [0.1], [1.0], [1.1], [0.2]], np.float32)
        >>> result = fit_few_shot(embeddings, {0: "cat", 1: "cat", 2: "dog", 3: "dog"})
        >>> result.classes[result.probabilities[4].argmax()]
        'cat'
    """
    blocks = [slice(row, row + _BLOCK_ROWS) for row in range(0, len(embeddings), _BLOCK_ROWS)]
    scaler = StandardScaler()
    for block in blocks:
        scaler.partial_fit(embeddings[block].astype(np.float64))
    rows = np.array(sorted(labels))
    classes, targets = np.unique([labels[row] for row in rows], return_inverse=True)
    features = scaler.transform(embeddings[rows].astype(np.float64))
    model = _fit(features, targets, seed)
    probabilities = [
        model.predict_proba(scaler.transform(embeddings[block].astype(np.float64)))
        for block in blocks
    ]
    return FewShotResult(
        classes.tolist(),
        np.concatenate(probabilities),
        *_linear_layer(scaler, model),
        classes[np.bincount(targets) == 1].tolist(),
        _estimate(features, targets, seed),
    )


def _linear_layer(scaler: StandardScaler, model: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias of the layer that standardises and classifies."""
    weights, intercepts = model[-1].coef_, model[-1].intercept_
    if len(weights) == 1:  # of two classes scikit-learn has the second one's logit
        weights = np.concatenate([np.zeros_like(weights), weights])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    kernel = (weights / scaler.scale_).T
    return kernel, intercepts - scaler.mean_ @ kernel


def _estimate(features: np.ndarray, targets: np.ndarray, seed: int) -> AccuracyEstimate | None:
    folds = _folds(targets, seed)
    if not folds:
        return None
    correct = 0
    for fold in folds:
        predictions = _fit(features[~fold], targets[~fold], seed).predict(features[fold])
        correct += int(np.sum(predictions == targets[fold]))
    held_out = targets[np.any(folds, axis=0)]
    return AccuracyEstimate(correct, len(held_out), chance(held_out), len(folds))


def _fit(features: np.ndarray, targets: np.ndarray, seed: int) -> Pipeline:
    """Fits with the strength under which held-out labels are the most probable."""
    folds = _folds(targets, seed)

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


def _folds(targets: np.ndarray, seed: int) -> list[np.ndarray]:
    """Masks of the labels to hold out, bool `[n]`: each label once but for a class's only one.

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
