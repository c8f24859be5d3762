"""Classification of frozen embeddings from a few labels, with a cross-validated accuracy."""

from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluate.few_labels import fit_few_labels, label_folds, linear_layer
from byol_tf.runs.accuracy import Accuracy, chance

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
    model = fit_few_labels(features, targets, seed)
    probabilities = [
        model.predict_proba(scaler.transform(embeddings[block].astype(np.float64)))
        for block in blocks
    ]
    return FewShotResult(
        classes.tolist(),
        np.concatenate(probabilities),
        *linear_layer(scaler, model),
        classes[np.bincount(targets) == 1].tolist(),
        _estimate(features, targets, seed),
    )


def _estimate(features: np.ndarray, targets: np.ndarray, seed: int) -> AccuracyEstimate | None:
    folds = label_folds(targets, seed)
    if not folds:
        return None
    correct = 0
    for fold in folds:
        predictions = fit_few_labels(features[~fold], targets[~fold], seed).predict(features[fold])
        correct += int(np.sum(predictions == targets[fold]))
    held_out = targets[np.any(folds, axis=0)]
    return AccuracyEstimate(correct, len(held_out), chance(held_out), len(folds))
