"""A classifier from a handful of labels: what it finds, and that its estimate is no better than it
should be."""

import tracemalloc

import numpy as np

from byol_tf.embed import few_shot as module
from byol_tf.embed.few_shot import fit_few_shot


def heaps(apart: float, count: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes, so far apart, in 40 dimensions of noise; and the classes."""
    draw = np.random.default_rng(0)
    classes = draw.integers(0, 3, count)
    features = draw.normal(size=(count, 40))
    features[np.arange(count), classes] += apart
    return features.astype(np.float32), classes


def labelled(classes: np.ndarray, count: int) -> dict[int, str]:
    return {row: "abc"[classes[row]] for row in range(count)}


def test_thirty_labels_sort_what_can_be_told_apart():
    features, classes = heaps(8.0)
    few = fit_few_shot(features, labelled(classes, 30))
    assert few.classes == ["a", "b", "c"]
    np.testing.assert_allclose(few.probabilities.sum(axis=1), 1.0, rtol=1e-6)
    assert np.mean(few.probabilities.argmax(axis=1)[30:] == classes[30:]) > 0.93
    assert few.estimate.right >= 27
    assert few.estimate.low < few.estimate.right / 30 <= few.estimate.high


def test_labels_without_meaning_promise_nothing():
    features, _ = heaps(0.0)
    classes = np.random.default_rng(1).integers(0, 3, 200)
    estimate = fit_few_shot(features, labelled(classes, 60)).estimate
    assert estimate.low < 1 / 3 < estimate.high
    assert (estimate.of, estimate.folds) == (60, 5)
    assert estimate.commonest == np.bincount(classes[:60]).max() / 60


def test_the_only_label_of_a_class_is_learned_from_and_not_counted():
    features, classes = heaps(8.0)
    given = {row: "abc"[classes[row]] for row in range(60) if classes[row] != 2}
    few = fit_few_shot(features, given | {int(np.flatnonzero(classes == 2)[0]): "c"})
    assert few.alone == ["c"] and few.estimate.of == len(given)
    assert few.estimate.right > 0.9 * len(given)
    assert few.probabilities.shape == (200, 3)


def test_single_labels_leave_no_estimate():
    features, classes = heaps(20.0)
    rows = [int(np.flatnonzero(classes == number)[0]) for number in range(3)]
    few = fit_few_shot(features, {row: "abc"[classes[row]] for row in rows})
    assert few.estimate is None and few.alone == ["a", "b", "c"]
    assert np.mean(few.probabilities.argmax(axis=1) == classes) > 0.45  # chance is a third


def test_blocks_change_nothing_and_take_little_memory(monkeypatch):
    features, classes = heaps(8.0, 20_000)
    features = np.tile(features, 4)  # 12.8 MB
    whole = fit_few_shot(features[:4_000], labelled(classes, 6))
    monkeypatch.setattr(module, "_BLOCK", 1_000)
    np.testing.assert_allclose(
        fit_few_shot(features[:4_000], labelled(classes, 6)).probabilities,
        whole.probabilities,
        rtol=1e-6,
    )
    tracemalloc.start()
    few = fit_few_shot(features, labelled(classes, 6))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert few.probabilities.shape == (20_000, 3)
    assert peak < 0.5 * features.nbytes  # all of them in float64 would be twice as much as there is
