"""Judges of frozen features, by their definitions."""

import numpy as np


def knn_accuracy(train, train_labels, test, test_labels, neighbours, temperature):
    """Each of the nearest by cosine votes with exp(cosine / temperature) (Wu et al. 2018, section
    3.4)."""
    train, test = (
        np.asarray(x, np.float64) / np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True)
        for x in (train, test)
    )
    classes = np.unique(train_labels)
    right = 0
    for feature, label in zip(test, test_labels, strict=True):
        cosines = train @ feature
        nearest = np.argsort(-cosines)[:neighbours]
        votes = [
            np.exp((cosines[nearest] - cosines.max()) / temperature)[
                train_labels[nearest] == c
            ].sum()
            for c in classes
        ]
        right += classes[np.argmax(votes)] == label
    return right / len(test)


def effective_rank(vectors):
    """exp of the entropy of the singular values' shares, from the eigenvalues of the centred Gram
    matrix (Roy and Vetterli 2007)."""
    centred = np.asarray(vectors, np.float64) - np.mean(vectors, axis=0)
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred)
    values = np.sqrt(np.maximum(eigenvalues, 0.0))
    shares = values[values > 1e-9 * values.max()]
    shares = shares / shares.sum()
    return np.exp(-(shares * np.log(shares)).sum())
