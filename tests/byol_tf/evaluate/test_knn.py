"""The nearest-neighbour vote against NumPy and scikit-learn."""

import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from byol_tf.evaluate import knn
from byol_tf.evaluate.knn import knn_accuracy, nearest
from tests.helpers.clusters import heaps
from tests.reference import evaluation as reference


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


@pytest.mark.parametrize("neighbours", [1, 4, 21])
def test_uniform_votes_equal_scikit_learn_exactly(neighbours):
    train, test = heaps(400, 0), heaps(300, 1)
    classifier = KNeighborsClassifier(
        neighbours, weights="uniform", metric="cosine", algorithm="brute"
    ).fit(*train)
    assert knn_accuracy(*train, *test, neighbours, None) == classifier.score(*test)


def test_features_that_hardly_differ_equal_scikit_learn_in_float64():
    """Of a nearly collapsed encoder: in float32 neighbours change places."""
    (train, labels), (test, test_labels) = heaps(400, 0), heaps(300, 1)
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
)  # in the last two a block has fewer than are to vote
def test_blocks_change_nothing(monkeypatch, temperature, sizes):
    train, test = heaps(150, 0), heaps(121, 1)
    whole = knn_accuracy(*train, *test, 10, temperature)
    monkeypatch.setattr(knn, "_block_sizes", lambda width, neighbours: sizes)
    assert knn_accuracy(*train, *test, 10, temperature) == whole


def test_blocks_equal_scikit_learn_exactly(monkeypatch):
    train, test = heaps(400, 0), heaps(300, 1)
    classifier = KNeighborsClassifier(
        21, weights="uniform", metric="cosine", algorithm="brute"
    ).fit(*train)
    monkeypatch.setattr(knn, "_BLOCK_BYTES", 50_000)
    queries, references = knn._block_sizes(12, 21)
    assert 1 < queries < 50 and 1 < references < 50
    assert knn_accuracy(*train, *test, 21, None) == classifier.score(*test)


@pytest.mark.parametrize(
    ("count", "queries", "width"), [(10_000, 1_000, 12), (2_000, 500, 256), (500, 2_000, 256)]
)
def test_memory_is_a_block_whatever_the_number_of_features_and_queries(
    monkeypatch, count, queries, width
):
    """The whole table of cosines would take 80, 8 and 8 MB, normalised features 1, 4 and 1."""
    monkeypatch.setattr(knn, "_BLOCK_BYTES", 2**20)
    (train, labels), (test, test_labels) = (
        heaps(count, 0, width=width),
        heaps(queries, 1, width=width),
    )
    knn_accuracy(
        train[:100], labels[:100], test, test_labels
    )  # what is imported on the way is not counted
    tracemalloc.start()
    knn_accuracy(train, labels, test, test_labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 2**20


@pytest.mark.long
def test_100000_features_of_512_and_10000_queries_take_a_block():
    draw = np.random.default_rng(0)
    train, test = (
        draw.standard_normal((100_000, 512), np.float32),
        draw.standard_normal((10_000, 512), np.float32),
    )
    labels, test_labels = draw.integers(0, 1000, len(train)), draw.integers(0, 1000, len(test))
    tracemalloc.start()
    assert knn_accuracy(train, labels, test, test_labels) < 0.01
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * 2**28


def test_nearest_are_those_with_the_largest_cosine():
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(300, 16)).astype(np.float32)
    embeddings[7] = 0.0
    rows, cosines = nearest(embeddings, embeddings[3], 5, without=3)
    lengths = np.maximum(np.linalg.norm(embeddings.astype(np.float64), axis=1), 1e-300)
    expected = (
        embeddings.astype(np.float64) @ embeddings[3].astype(np.float64) / lengths / lengths[3]
    )
    expected[3] = -1
    np.testing.assert_array_equal(rows, np.argsort(-expected)[:5])
    np.testing.assert_allclose(cosines, np.sort(expected)[::-1][:5])
    assert len(nearest(embeddings[:4], embeddings[3], 9, without=3)[0]) == 3
