"""Classification from a few labels: its predictions, and its cross-validated accuracy."""

import tracemalloc
import warnings

import numpy as np
import pytest

from byol_tf.embed import few_shot
from byol_tf.embed.few_shot import fit_few_shot


def three_clusters(distance: float, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes in 40 dimensions with unit noise; and the classes."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, count)
    features = rng.normal(size=(count, 40))
    features[np.arange(count), classes] += distance
    return features.astype(np.float32), classes


def labelled(classes: np.ndarray, count: int) -> dict[int, str]:
    return {row: "abc"[classes[row]] for row in range(count)}


def test_thirty_labels_classify_separable_clusters():
    features, classes = three_clusters(8.0)
    result = fit_few_shot(features, labelled(classes, 30))
    assert result.classes == ["a", "b", "c"]
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert np.mean(result.probabilities.argmax(axis=1)[30:] == classes[30:]) > 0.93
    assert result.estimate.correct >= 27
    low, high = result.estimate.accuracy.interval
    assert low < result.estimate.correct / 30 <= high


def test_interval_of_random_labels_contains_chance():
    features, _ = three_clusters(0.0)
    classes = np.random.default_rng(1).integers(0, 3, 200)
    estimate = fit_few_shot(features, labelled(classes, 60)).estimate
    low, high = estimate.accuracy.interval
    assert low < 1 / 3 < high
    assert (estimate.count, estimate.folds) == (60, 5)
    assert estimate.majority == np.bincount(classes[:60]).max() / 60


def test_single_label_of_a_class_is_learned_and_not_counted():
    features, classes = three_clusters(8.0)
    labels = {row: "abc"[classes[row]] for row in range(60) if classes[row] != 2}
    result = fit_few_shot(features, labels | {int(np.flatnonzero(classes == 2)[0]): "c"})
    assert result.single_label_classes == ["c"] and result.estimate.count == len(labels)
    assert result.estimate.correct > 0.9 * len(labels)
    assert result.probabilities.shape == (200, 3)


def test_single_labels_leave_no_estimate():
    features, classes = three_clusters(20.0)
    rows = [int(np.flatnonzero(classes == number)[0]) for number in range(3)]
    result = fit_few_shot(features, {row: "abc"[classes[row]] for row in rows})
    assert result.estimate is None and result.single_label_classes == ["a", "b", "c"]
    assert np.mean(result.probabilities.argmax(axis=1) == classes) > 0.45  # chance is a third


def test_blocks_do_not_change_results_and_bound_memory(monkeypatch):
    features, classes = three_clusters(8.0, 20_000)
    features = np.tile(features, 4)  # 12.8 MB
    expected = fit_few_shot(features[:4_000], labelled(classes, 6))
    monkeypatch.setattr(few_shot, "_BLOCK_ROWS", 1_000)
    np.testing.assert_allclose(
        fit_few_shot(features[:4_000], labelled(classes, 6)).probabilities,
        expected.probabilities,
        rtol=1e-6,
    )
    tracemalloc.start()
    result = fit_few_shot(features, labelled(classes, 6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.probabilities.shape == (20_000, 3)
    assert peak < 0.5 * features.nbytes  # all of them in float64 would be twice as much as there is


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_layer_gives_the_same_probabilities(classes):
    embeddings, targets = three_clusters(2.0, 60)
    labels = {row: str(targets[row] % classes) for row in range(20)}
    result = fit_few_shot(embeddings, labels)
    powers = np.exp(embeddings @ result.kernel + result.bias)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-9)


def test_class_with_two_labels_leaves_the_others_five_folds():
    features, classes = three_clusters(8.0)
    few = set(np.flatnonzero(classes == 2)[:2].tolist())
    rows = [row for row in range(60) if classes[row] != 2] + list(few)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimate = fit_few_shot(features, {row: "abc"[classes[row]] for row in rows}).estimate
    assert (estimate.count, estimate.folds) == (len(rows), 5)
