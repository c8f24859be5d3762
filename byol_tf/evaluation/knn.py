"""Nearest-neighbour accuracy on frozen features: nothing is fitted, so it follows the representation closely."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier


def knn_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, neighbours: int = 20, temperature: float = 0.07
) -> float:
    """Accuracy of a vote of the nearest training features by cosine, each with weight exp(cosine / temperature).

    Args:
        train, test: features, float `[n, d]`.
        train_labels, test_labels: int `[n]`.
        neighbours: k; at most the number of training features is used.
        temperature: how fast a vote fades with distance.

    Returns:
        The fraction of test labels that are right.
    """

    def votes(distance):
        # As shares of the nearest one's vote: exp(1 / temperature) itself overflows below 0.0014.
        return np.exp((distance.min(axis=1, keepdims=True) - distance) / temperature)

    classifier = KNeighborsClassifier(min(neighbours, len(train)), weights=votes, metric="cosine", algorithm="brute")
    return float(classifier.fit(train, train_labels).score(test, test_labels))
