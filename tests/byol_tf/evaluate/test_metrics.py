"""Top-k accuracy against scikit-learn, and its rules for ties and diverged classifiers."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from byol_tf.evaluate.metrics import (
    effective_rank,
    mean_per_class_accuracy,
    top_1_and_5,
    top_k_accuracy,
)
from tests.reference import evaluation as reference


def test_top_k_accuracy_equals_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    for k in (1, 5):
        assert top_k_accuracy(scores, labels, k) == top_k_accuracy_score(
            labels, scores, k=k, labels=np.arange(12)
        )


def test_smallest_class_wins_at_equal_scores():
    assert top_k_accuracy(np.zeros((4, 6)), np.array([0, 1, 4, 5]), 1) == 0.25
    assert top_k_accuracy(np.zeros((4, 6)), np.array([0, 1, 4, 5]), 5) == 0.75


def test_nan_and_classes_without_training_images_are_wrong():
    scores = np.array([[np.nan, 1.0], [0.0, np.nan], [1.0, -np.inf]])
    assert top_k_accuracy(scores, np.array([1, 0, 1]), 2) == 0.0


def test_top_5_of_five_classes_is_none():
    assert top_1_and_5(np.eye(5), np.arange(5)) == {"top1": 1.0, "top5": None}
    assert top_1_and_5(np.eye(6), np.arange(6)) == {"top1": 1.0, "top5": 1.0}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_of_equally_used_directions_is_their_number(rank):
    corners = np.concatenate(
        [np.eye(8)[:rank], -np.eye(8)[:rank]]
    )  # centred, all singular values equal
    assert effective_rank(corners.astype(np.float32)) == pytest.approx(rank, rel=1e-6)
    assert effective_rank(corners * 1e-3 + 7.0) == pytest.approx(rank, rel=1e-6)


def test_of_one_point_is_1():
    assert effective_rank(np.full((5, 4), 3.7, np.float32)) == 1.0
    assert effective_rank(np.zeros((5, 4), np.float32)) == 1.0
    assert effective_rank(np.full((600, 64), 1e4, np.float32)) == 1.0


def test_of_a_line_is_1():
    line = np.outer(np.linspace(-3, 9, 20), np.arange(1, 6)).astype(np.float32)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)


def test_two_unequal_directions_by_hand():
    values = np.array([3.0, 1.0])
    points = np.concatenate([np.diag(values), -np.diag(values)])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(points) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(60, 10), (10, 60)])
def test_equals_the_route_over_eigenvalues(shape):
    vectors = (
        np.random.default_rng(0).normal(size=shape) * np.linspace(0.1, 3.0, shape[1]) + 5.0
    ).astype(np.float32)
    received = effective_rank(vectors)
    assert received == pytest.approx(reference.effective_rank(vectors), rel=1e-5)
    assert 1.0 < received <= min(shape[0] - 1, shape[1])


def test_mean_per_class_counts_classes_equally():
    scores = np.eye(3)[[0, 0, 0, 1, 1]]
    labels = np.array([0, 0, 0, 1, 2])
    assert mean_per_class_accuracy(scores, labels) == pytest.approx((1.0 + 1.0 + 0.0) / 3)
