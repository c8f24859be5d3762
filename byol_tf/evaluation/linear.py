"""Linear accuracy on frozen features (STL-10 paper, section 3.4)."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluation.threads import threads_for

_ITERATIONS = 200  # a probe is run after many epochs: a comparable figure in seconds, not the last tenth of a point


def linear_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
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
