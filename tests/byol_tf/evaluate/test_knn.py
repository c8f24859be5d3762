"""Nearest-neighbour search and vote against NumPy and scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from byol_tf.evaluate import knn
from byol_tf.evaluate.knn import knn_accuracy, nearest_neighbours
from tests.helpers.clusters import gaussian_clusters
from tests.reference import evaluation as reference


@pytest.mark.parametrize("neighbours", [1, 5, 20])
@pytest.mark.parametrize("temperature", [0.03, 0.07, 1.0])
def test_accuracy_equals_numpy(neighbours, temperature):
    train, test = gaussian_clusters(150, 0), gaussian_clusters(120, 1)
    received = knn_accuracy(*train, *test, neighbours, temperature)
    assert received == reference.knn_accuracy(*train, *test, neighbours, temperature)
    assert 0.3 < received < 0.9


def test_default_is_20_neighbours_at_temperature_007():
    train, test = gaussian_clusters(150, 0), gaussian_clusters(300, 1)
    assert knn_accuracy(*train, *test) == knn_accuracy(*train, *test, 20, 0.07)


def test_length_of_features_does_not_count():
    (train, labels), test = gaussian_clusters(150, 0), gaussian_clusters(120, 1)
    scaled = train * np.random.default_rng(2).uniform(0.01, 100.0, (150, 1)).astype(np.float32)
    assert knn_accuracy(scaled, labels, *test) == knn_accuracy(train, labels, *test)


def test_low_temperature_favours_distance_and_high_one_numbers():
    train = np.array([[1.0, 0.0], [0.9, 0.5], [0.9, -0.5]], np.float32)
    labels, test = np.array([7, 3, 3]), np.array([[1.0, 0.01]], np.float32)
    assert knn_accuracy(train, labels, test, np.array([7]), 3, 0.05) == 1.0
    assert knn_accuracy(train, labels, test, np.array([3]), 3, 5.0) == 1.0


def test_temperature_near_0_is_single_nearest_neighbour():
    """exp(1 / temperature) overflowed here once."""
    train, test = gaussian_clusters(150, 0), gaussian_clusters(120, 1)
    assert knn_accuracy(*train, *test, 20, 1e-4) == knn_accuracy(*train, *test, 1, 0.07)


def test_more_neighbours_than_features_are_all_features():
    train, test = gaussian_clusters(8, 0), gaussian_clusters(50, 1)
    assert knn_accuracy(*train, *test, 20) == reference.knn_accuracy(*train, *test, 8, 0.07)


@pytest.mark.parametrize("neighbours", [1, 4, 21])
def test_uniform_votes_equal_scikit_learn_exactly(neighbours):
    train, test = gaussian_clusters(400, 0), gaussian_clusters(300, 1)
    classifier = KNeighborsClassifier(
        neighbours, weights="uniform", metric="cosine", algorithm="brute"
    ).fit(*train)
    assert knn_accuracy(*train, *test, neighbours, None) == classifier.score(*test)


def test_nearly_equal_features_equal_scikit_learn_in_float64():
    """Those of a nearly collapsed encoder: float32 changes the order of neighbours."""
    (train, labels), (test, test_labels) = gaussian_clusters(400, 0), gaussian_clusters(300, 1)
    train, test = 1.0 + 1e-3 * train, 1.0 + 1e-3 * test
    classifier = KNeighborsClassifier(7, metric="cosine", algorithm="brute").fit(
        train.astype(np.float64), labels
    )
    assert knn_accuracy(train, labels, test, test_labels, 7, None) == classifier.score(
        test.astype(np.float64), test_labels
    )


@pytest.mark.parametrize("temperature", [0.07, None])
@pytest.mark.parametrize(
    "sizes", [(7, 150), (121, 40), (7, 11), (50, 3), (60, 1)]
)  # in the last two a block has fewer rows than there are votes
def test_block_sizes_do_not_change_accuracy(monkeypatch, temperature, sizes):
    train, test = gaussian_clusters(150, 0), gaussian_clusters(121, 1)
    expected = knn_accuracy(*train, *test, 10, temperature)
    monkeypatch.setattr(knn, "_block_sizes", lambda width, k: sizes)
    assert knn_accuracy(*train, *test, 10, temperature) == expected


def test_blocks_equal_scikit_learn_exactly(monkeypatch):
    train, test = gaussian_clusters(400, 0), gaussian_clusters(300, 1)
    classifier = KNeighborsClassifier(
        21, weights="uniform", metric="cosine", algorithm="brute"
    ).fit(*train)
    monkeypatch.setattr(knn, "_BLOCK_BYTES", 50_000)
    query_rows, database_rows = knn._block_sizes(12, 21)
    assert 1 < query_rows < 50
    assert 1 < database_rows < 50
    assert knn_accuracy(*train, *test, 21, None) == classifier.score(*test)


@pytest.mark.parametrize(
    ("count", "queries", "width"), [(10_000, 1_000, 12), (2_000, 500, 256), (500, 2_000, 256)]
)
def test_memory_is_a_block_for_any_number_of_features(monkeypatch, count, queries, width):
    """All cosines would take 80, 8 and 8 MB, normalised features 1, 4 and 1."""
    monkeypatch.setattr(knn, "_BLOCK_BYTES", 2**20)
    train, labels = gaussian_clusters(count, 0, width=width)
    test, test_labels = gaussian_clusters(queries, 1, width=width)
    knn_accuracy(train[:100], labels[:100], test, test_labels)  # without the memory of imports
    tracemalloc.start()
    knn_accuracy(train, labels, test, test_labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 2**20


@pytest.mark.long
def test_100000_features_of_512_and_10000_queries_take_a_block():
    rng = np.random.default_rng(0)
    train = rng.standard_normal((100_000, 512), np.float32)
    test = rng.standard_normal((10_000, 512), np.float32)
    labels, test_labels = rng.integers(0, 1000, len(train)), rng.integers(0, 1000, len(test))
    tracemalloc.start()
    assert knn_accuracy(train, labels, test, test_labels) < 0.01
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 2**28


@pytest.mark.parametrize("sizes", [(300, 300), (2, 7), (1, 1)])
def test_neighbours_have_the_largest_cosines(monkeypatch, sizes):
    monkeypatch.setattr(knn, "_block_sizes", lambda width, k: sizes)
    features = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    features[7] = 0.0
    own = np.array([3, 250, 0])
    indices, cosines = nearest_neighbours(features[own], features, 5, exclude=own)
    exact = features.astype(np.float64)
    lengths = np.maximum(np.linalg.norm(exact, axis=1, keepdims=True), 1e-300)
    expected = ((exact / lengths) @ (exact / lengths).T)[own]
    expected[np.arange(3), own] = -1.0
    np.testing.assert_array_equal(indices, np.argsort(-expected, axis=1)[:, :5])
    np.testing.assert_allclose(cosines, -np.sort(-expected, axis=1)[:, :5])


@pytest.mark.parametrize("sizes", [(300, 300), (2, 7)])
def test_smaller_index_precedes_at_equal_cosine(monkeypatch, sizes):
    monkeypatch.setattr(knn, "_block_sizes", lambda width, k: sizes)
    database = np.eye(4)[[0, 1, 1, 2, 1, 1, 1, 3]]
    indices, cosines = nearest_neighbours(database[[1, 4]], database, 3, exclude=np.array([1, 4]))
    assert indices.tolist() == [[2, 4, 5], [1, 2, 5]]
    assert (cosines == 1.0).all()


def test_few_rows_are_all_neighbours_but_the_excluded():
    features = np.random.default_rng(0).normal(size=(4, 8))
    assert nearest_neighbours(features[:1], features, 9)[0].shape == (1, 4)
    indices, _ = nearest_neighbours(features[:1], features, 9, exclude=np.array([0]))
    assert sorted(indices[0]) == [1, 2, 3]
