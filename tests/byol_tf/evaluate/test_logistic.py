"""The linear judge where the right answer is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from byol_tf.evaluate.logistic import linear_accuracy, logistic_protocol, threads_for
from byol_tf.evaluate.splits import held_out
from tests.helpers.clusters import heaps


def test_separable_classes_are_all_right_whatever_their_scale_and_place():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 400)
    features = (np.eye(4)[labels] * 10.0 + draw.normal(0.0, 1.0, (400, 4))).astype(np.float32)
    assert linear_accuracy(features[:200], labels[:200], features[200:], labels[200:]) == 1.0
    halves = labels % 2
    odd = np.stack(
        [1e-4 * (20.0 * halves + draw.normal(size=400)) + 5.0, 1e3 * draw.normal(size=400)], axis=1
    ).astype(np.float64)
    assert linear_accuracy(odd[:200], halves[:200], odd[200:], halves[200:]) == 1.0


def test_random_labels_are_right_by_chance():
    draw = np.random.default_rng(1)
    features, labels = draw.normal(size=(1200, 16)).astype(np.float32), draw.integers(0, 4, 1200)
    accuracy = linear_accuracy(features[:400], labels[:400], features[400:], labels[400:])
    assert abs(accuracy - 0.25) < 4.0 * np.sqrt(0.25 * 0.75 / 800)


def test_a_class_that_was_not_learned_is_wrong():
    features = np.float32([[0.0], [1.0], [0.0], [1.0]])
    assert (
        linear_accuracy(
            features, np.array([0, 1, 0, 1]), np.float32([[0.0], [1.0]]), np.array([0, 2])
        )
        == 0.5
    )


def test_it_is_the_same_each_time_and_warns_of_nothing():
    draw = np.random.default_rng(2)
    features, labels = (
        draw.normal(size=(300, 200)).astype(np.float32) * 100.0,
        draw.integers(0, 3, 300),
    )
    first, second = (
        linear_accuracy(features[:250], labels[:250], features[250:], labels[250:])
        for _ in range(2)
    )
    assert first == second


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

    accuracies = {
        c: np.average([of_a_part(c, held) for held in parts], weights=np.sum(parts, axis=1))
        for c in STRENGTHS
    }
    best = max(accuracies, key=accuracies.get)
    expected = accuracy(best, (train, labels), (test, test_labels))
    received = logistic_protocol(*split, seed=3, strengths=STRENGTHS)
    assert received["C"] == best
    assert received["top1"] == expected
    assert received["top1"] < received["top5"] <= 1.0
    assert received["converged"]
    assert received["held_out_images"] == np.sum(parts) > 230
    assert list(received["held_out_accuracy"].values()) == pytest.approx(
        list(accuracies.values()), abs=1e-12
    )


@pytest.mark.parametrize(
    ("images", "judged"), [(2000, 2000), (5000, 2000), (9000, 3600), (12000, 2400)]
)
def test_strengths_are_chosen_by_about_2000_images_where_there_are_so_many(images, judged):
    """A fifth of few labels is too few to choose by, and five times the work of many isn't
    needed."""
    train, labels = heaps(images, 0)[0], np.arange(images) % 4
    assert (
        logistic_protocol(train, labels, train[:9], labels[:9], 0, (1e-4, 1e-3))["held_out_images"]
        == judged
    )


def test_test_labels_choose_nothing(split):
    train, labels, test, test_labels = split
    first, second = (
        logistic_protocol(train, labels, test, each, 0, STRENGTHS)
        for each in (test_labels, (test_labels + 1) % 6)
    )
    assert (first["C"], first["held_out_accuracy"]) == (second["C"], second["held_out_accuracy"])
    assert second["top1"] < first["top1"]


def test_two_classes_and_one_that_was_not_learned():
    features = np.float32([[0.0], [0.1], [1.0], [1.1]])
    labels = np.array([0, 0, 2, 2])
    received = logistic_protocol(
        features, labels, np.float32([[0.0], [1.0], [1.0]]), np.array([0, 2, 1]), seed=0
    )
    assert received["top1"] == pytest.approx(2 / 3)
    assert received["top5"] is None


def threads() -> list[int]:
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


@pytest.mark.parametrize(("rows", "alone"), [(1_000, True), (2**22 // 64, False)])
def test_small_fits_take_one_thread(rows, alone):
    before = threads()
    with threads_for(np.broadcast_to(np.float32(0), (rows, 64))):
        assert threads() == ([1] * len(before) if alone else before)
    assert threads() == before
    assert before
