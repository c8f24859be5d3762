"""Logistic regression on features whose classes are known, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info

from byol_tf.evaluate import logistic
from byol_tf.evaluate.logistic import (
    TRANSFER_STRENGTHS,
    linear_accuracy,
    logistic_protocol,
    threads_for,
)
from byol_tf.runs.splits import stratified_folds
from tests.helpers.clusters import gaussian_clusters


def test_separable_classes_of_any_scale_and_offset_are_all_correct():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    features = (np.eye(4)[labels] * 10.0 + rng.normal(0.0, 1.0, (400, 4))).astype(np.float32)
    assert linear_accuracy(features[:200], labels[:200], features[200:], labels[200:]) == 1.0
    halves = labels % 2
    odd = np.stack(
        [1e-4 * (20.0 * halves + rng.normal(size=400)) + 5.0, 1e3 * rng.normal(size=400)], axis=1
    ).astype(np.float64)
    assert linear_accuracy(odd[:200], halves[:200], odd[200:], halves[200:]) == 1.0


def test_random_labels_are_predicted_by_chance():
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(1200, 16)).astype(np.float32), rng.integers(0, 4, 1200)
    accuracy = linear_accuracy(features[:400], labels[:400], features[400:], labels[400:])
    assert abs(accuracy - 0.25) < 4.0 * np.sqrt(0.25 * 0.75 / 800)


def test_class_without_training_images_is_wrong():
    features = np.float32([[0.0], [1.0], [0.0], [1.0]])
    assert (
        linear_accuracy(
            features, np.array([0, 1, 0, 1]), np.float32([[0.0], [1.0]]), np.array([0, 2])
        )
        == 0.5
    )


def test_fit_is_reproducible_and_raises_no_warning():
    rng = np.random.default_rng(2)
    features, labels = (
        rng.normal(size=(300, 200)).astype(np.float32) * 100.0,
        rng.integers(0, 3, 300),
    )
    first, second = (
        linear_accuracy(features[:250], labels[:250], features[250:], labels[250:])
        for _ in range(2)
    )
    assert first == second


STRENGTHS = (1e-4, 1e-2, 1.0)


@pytest.fixture(scope="module")
def split() -> tuple[np.ndarray, ...]:
    return *gaussian_clusters(240, 0, classes=6), *gaussian_clusters(400, 1, classes=6)


@pytest.mark.parametrize("standardize", [True, False])
def test_protocol_equals_scikit_learn_step_by_step(split, standardize):
    train, labels, test, test_labels = split
    folds = stratified_folds(labels, 3)

    def accuracy(strength, fit_on, score_on):
        scale = StandardScaler(with_mean=standardize, with_std=standardize).fit(fit_on[0])
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(scale.transform(fit_on[0]), fit_on[1])
        return model.score(scale.transform(score_on[0]), score_on[1])

    def fold_accuracy(strength, fold):
        return accuracy(strength, (train[~fold], labels[~fold]), (train[fold], labels[fold]))

    accuracies = {
        c: np.average([fold_accuracy(c, fold) for fold in folds], weights=folds.sum(axis=1))
        for c in STRENGTHS
    }
    best = max(accuracies, key=accuracies.get)
    expected = accuracy(best, (train, labels), (test, test_labels))
    received = logistic_protocol(*split, 3, STRENGTHS, standardize=standardize)
    assert received["C"] == best
    assert received["top1"] == expected
    assert received["top1"] < received["top5"] <= 1.0
    assert received["converged"]
    assert received["held_out_images"] == folds.sum() > 230
    assert list(received["held_out_accuracy"].values()) == pytest.approx(
        list(accuracies.values()), abs=1e-12
    )


@pytest.mark.parametrize(
    ("images", "held_out"), [(2000, 2000), (5000, 2000), (9000, 3600), (12000, 2400)]
)
def test_strength_is_chosen_by_about_2000_held_out_images(images, held_out):
    """A fifth of few labels is too few, and of many labels one fifth is enough."""
    train, labels = gaussian_clusters(images, 0)[0], np.arange(images) % 4
    assert (
        logistic_protocol(train, labels, train[:9], labels[:9], 0, (1e-4, 1e-3))["held_out_images"]
        == held_out
    )


def test_test_labels_do_not_affect_the_strength(split):
    train, labels, test, test_labels = split
    first, second = (
        logistic_protocol(train, labels, test, some_labels, 0, STRENGTHS)
        for some_labels in (test_labels, (test_labels + 1) % 6)
    )
    assert (first["C"], first["held_out_accuracy"]) == (second["C"], second["held_out_accuracy"])
    assert second["top1"] < first["top1"]


def test_two_classes_and_one_without_training_images():
    features = np.float32([[0.0], [0.1], [1.0], [1.1]])
    labels = np.array([0, 0, 2, 2])
    received = logistic_protocol(
        features, labels, np.float32([[0.0], [1.0], [1.0]]), np.array([0, 2, 1]), seed=0
    )
    assert received["top1"] == pytest.approx(2 / 3)
    assert received["top5"] is None


def blas_threads() -> list[int]:
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


@pytest.mark.parametrize(("rows", "single"), [(1_000, True), (2**22 // 64, False)])
def test_small_fits_use_one_thread(rows, single):
    before = blas_threads()
    with threads_for(np.broadcast_to(np.float32(0), (rows, 64))):
        assert blas_threads() == ([1] * len(before) if single else before)
    assert blas_threads() == before
    assert before


def test_probe_stops_after_200_iterations_and_the_protocol_after_1000(monkeypatch, split):
    """The probe's constant was once shadowed by the protocol's."""
    iterations = []

    class Recorded(LogisticRegression):
        def fit(self, features, labels):
            iterations.append(self.max_iter)
            return super().fit(features, labels)

    monkeypatch.setattr(logistic, "LogisticRegression", Recorded)
    linear_accuracy(*split)
    logistic_protocol(*split, seed=0, strengths=(1.0,))
    assert iterations == [200, 1000]


def test_transfer_protocol_has_the_papers_45_penalties():
    """BYOL paper, appendix D.2: from 1e-6 to 1e5, logarithmically spaced."""
    penalties = sorted(1.0 / strength for strength in TRANSFER_STRENGTHS)
    assert penalties == pytest.approx(np.logspace(-6, 5, 45))
