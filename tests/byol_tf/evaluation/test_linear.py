"""The linear judge where the right answer is known."""

import numpy as np

from byol_tf.evaluation.linear import linear_accuracy


def test_separable_classes_are_all_right_whatever_their_scale_and_place():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 400)
    features = (np.eye(4)[labels] * 10.0 + draw.normal(0.0, 1.0, (400, 4))).astype(np.float32)
    assert linear_accuracy(features[:200], labels[:200], features[200:], labels[200:]) == 1.0
    halves = labels % 2
    odd = np.stack([1e-4 * (20.0 * halves + draw.normal(size=400)) + 5.0, 1e3 * draw.normal(size=400)], axis=1).astype(np.float64)
    assert linear_accuracy(odd[:200], halves[:200], odd[200:], halves[200:]) == 1.0


def test_random_labels_are_right_by_chance():
    draw = np.random.default_rng(1)
    features, labels = draw.normal(size=(1200, 16)).astype(np.float32), draw.integers(0, 4, 1200)
    accuracy = linear_accuracy(features[:400], labels[:400], features[400:], labels[400:])
    assert abs(accuracy - 0.25) < 4.0 * np.sqrt(0.25 * 0.75 / 800)


def test_a_class_that_was_not_learned_is_wrong():
    features = np.float32([[0.0], [1.0], [0.0], [1.0]])
    assert linear_accuracy(features, np.array([0, 1, 0, 1]), np.float32([[0.0], [1.0]]), np.array([0, 2])) == 0.5


def test_it_is_the_same_each_time_and_warns_of_nothing():
    draw = np.random.default_rng(2)
    features, labels = draw.normal(size=(300, 200)).astype(np.float32) * 100.0, draw.integers(0, 3, 300)
    first, second = (linear_accuracy(features[:250], labels[:250], features[250:], labels[250:]) for _ in range(2))
    assert first == second
