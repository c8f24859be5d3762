"""Logistic regression whose strength the training labels choose."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from byol_tf.evaluation.labelled import held_out
from byol_tf.evaluation.logistic import logistic_protocol
from tests.byol_tf.evaluation.heaps import heaps

STRENGTHS = (1e-4, 1e-2, 1.0)


@pytest.fixture(scope="module")
def split() -> tuple[np.ndarray, ...]:
    return *heaps(240, 0, classes=6), *heaps(400, 1, classes=6)


def test_equals_scikit_learn_step_by_step(split):
    train, labels, test, test_labels = split
    parts = [held_out(labels, 3, turn=turn) for turn in range(5)]

    def accuracy(strength, fit, judge):
        scale = StandardScaler().fit(fit[0])
        model = LogisticRegression(C=strength, max_iter=1000).fit(scale.transform(fit[0]), fit[1])
        return model.score(scale.transform(judge[0]), judge[1])

    def of_a_part(strength, held):
        return accuracy(strength, (train[~held], labels[~held]), (train[held], labels[held]))

    accuracies = {c: np.average([of_a_part(c, held) for held in parts], weights=np.sum(parts, axis=1)) for c in STRENGTHS}
    best = max(accuracies, key=accuracies.get)
    expected = accuracy(best, (train, labels), (test, test_labels))
    received = logistic_protocol(*split, seed=3, strengths=STRENGTHS)
    assert received["C"] == best
    assert received["top1"] == expected
    assert received["top1"] < received["top5"] <= 1.0
    assert received["converged"]
    assert received["held_out_images"] == np.sum(parts) > 230
    assert list(received["held_out_accuracy"].values()) == pytest.approx(list(accuracies.values()), abs=1e-12)


@pytest.mark.parametrize(("images", "judged"), [(2000, 2000), (5000, 2000), (9000, 3600), (12000, 2400)])
def test_strengths_are_chosen_by_about_2000_images_where_there_are_so_many(images, judged):
    """A fifth of few labels is too few to choose by, and five times the work of many isn't needed."""
    train, labels = heaps(images, 0)[0], np.arange(images) % 4
    assert logistic_protocol(train, labels, train[:9], labels[:9], 0, (1e-4, 1e-3))["held_out_images"] == judged


def test_test_labels_choose_nothing(split):
    train, labels, test, test_labels = split
    first, second = (logistic_protocol(train, labels, test, each, 0, STRENGTHS) for each in (test_labels, (test_labels + 1) % 6))
    assert (first["C"], first["held_out_accuracy"]) == (second["C"], second["held_out_accuracy"])
    assert second["top1"] < first["top1"]


def test_two_classes_and_one_that_was_not_learned():
    features = np.float32([[0.0], [0.1], [1.0], [1.1]])
    labels = np.array([0, 0, 2, 2])
    received = logistic_protocol(features, labels, np.float32([[0.0], [1.0], [1.0]]), np.array([0, 2, 1]), seed=0)
    assert received["top1"] == pytest.approx(2 / 3)
    assert received["top5"] is None
