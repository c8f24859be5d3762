"""Top-k accuracy against scikit-learn, and where it must not be generous."""

import numpy as np
from sklearn.metrics import top_k_accuracy_score

from byol_tf.evaluation.scores import top_1_and_5, top_k_accuracy


def test_equals_scikit_learn():
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=(200, 12)), draw.integers(0, 12, 200)
    for k in (1, 5):
        assert top_k_accuracy(scores, labels, k) == top_k_accuracy_score(labels, scores, k=k, labels=np.arange(12))


def test_of_equal_scores_the_first_class_wins():
    assert top_k_accuracy(np.zeros((4, 6)), np.array([0, 1, 4, 5]), 1) == 0.25
    assert top_k_accuracy(np.zeros((4, 6)), np.array([0, 1, 4, 5]), 5) == 0.75


def test_a_diverged_classifier_and_a_class_never_learned_are_wrong():
    scores = np.array([[np.nan, 1.0], [0.0, np.nan], [1.0, -np.inf]])
    assert top_k_accuracy(scores, np.array([1, 0, 1]), 2) == 0.0


def test_top_5_of_five_classes_says_nothing():
    assert top_1_and_5(np.eye(5), np.arange(5)) == {"top1": 1.0, "top5": None}
    assert top_1_and_5(np.eye(6), np.arange(6)) == {"top1": 1.0, "top5": 1.0}
