"""Evaluation of frozen features by the definitions, in plain NumPy."""

import numpy as np


def knn_accuracy(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    neighbours: int,
    temperature: float,
) -> float:
    """Each of the nearest by cosine votes with exp(cosine / temperature).

    Wu et al. 2018, section 3.4.
    """
    train, test = (
        np.asarray(x, np.float64) / np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)
        for x in (train, test)
    )
    classes = np.unique(train_labels)
    correct = 0
    for feature, label in zip(test, test_labels, strict=True):
        cosines = train @ feature
        nearest = np.argsort(-cosines)[:neighbours]
        weights = np.exp((cosines[nearest] - cosines.max()) / temperature)
        votes = [weights[train_labels[nearest] == c].sum() for c in classes]
        correct += classes[np.argmax(votes)] == label
    return correct / len(test)


def effective_rank(vectors: np.ndarray) -> float:
    """Exponential of the entropy of the singular values (Roy and Vetterli 2007).

    From the eigenvalues of the centred Gram matrix.
    """
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred)
    values = np.sqrt(np.maximum(eigenvalues, 0.0))
    fractions = values[values > 1e-9 * values.max()]
    fractions = fractions / fractions.sum()
    return np.exp(-(fractions * np.log(fractions)).sum())
