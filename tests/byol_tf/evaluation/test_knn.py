"""The nearest-neighbour vote against NumPy."""

import numpy as np
import pytest

from byol_tf.evaluation.knn import knn_accuracy
from tests.reference import evaluation as reference


def heaps(count: int, seed: int, noise: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Features around five directions, far enough apart for some votes to be right and some wrong."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 5, count)
    centres = np.random.default_rng(99).normal(0.0, 1.0, (5, 12))
    return (centres[labels] + draw.normal(0.0, noise, (count, 12))).astype(np.float32), labels


@pytest.mark.parametrize("neighbours", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_equals_numpy(neighbours, temperature):
    train, test = heaps(150, 0), heaps(120, 1)
    received = knn_accuracy(*train, *test, neighbours, temperature)
    assert received == reference.knn_accuracy(*train, *test, neighbours, temperature)
    assert 0.3 < received < 0.9


def test_defaults_are_20_neighbours_at_a_temperature_of_007():
    train, test = heaps(150, 0), heaps(300, 1)
    assert knn_accuracy(*train, *test) == knn_accuracy(*train, *test, 20, 0.07)


def test_length_does_not_count():
    (train, labels), test = heaps(150, 0), heaps(120, 1)
    scaled = train * np.random.default_rng(2).uniform(0.01, 100.0, (150, 1)).astype(np.float32)
    assert knn_accuracy(scaled, labels, *test) == knn_accuracy(train, labels, *test)


def test_the_nearer_of_two_neighbours_wins_at_a_low_temperature_and_numbers_at_a_high_one():
    train = np.array([[1.0, 0.0], [0.9, 0.5], [0.9, -0.5]], np.float32)
    labels, test = np.array([7, 3, 3]), np.array([[1.0, 0.01]], np.float32)
    assert knn_accuracy(train, labels, test, np.array([7]), 3, 0.05) == 1.0
    assert knn_accuracy(train, labels, test, np.array([3]), 3, 5.0) == 1.0


def test_a_temperature_near_0_is_the_single_nearest_neighbour():
    """exp(1 / temperature) overflowed here once."""
    train, test = heaps(150, 0), heaps(120, 1)
    assert knn_accuracy(*train, *test, 20, 1e-4) == knn_accuracy(*train, *test, 1, 0.07)


def test_more_neighbours_than_features_are_all_of_them():
    train, test = heaps(8, 0), heaps(50, 1)
    assert knn_accuracy(*train, *test, 20) == reference.knn_accuracy(*train, *test, 8, 0.07)
