"""The approximate index: recall, agreement with exact search, and when it is rebuilt."""

import numpy as np
import pytest

from byol_tf.embed import search_index
from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError
from byol_tf.evaluate.knn import nearest_neighbours
from pipelines.sources import Photos

COUNT, WIDTH = 3_000, 32


@pytest.fixture
def photos() -> Photos:
    return Photos([f"{row:04}.png" for row in range(COUNT)], *np.zeros((2, COUNT), np.int64))


@pytest.fixture
def store(tmp_path, photos) -> Store:
    """With clusters of 100 embeddings each."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((COUNT // 100, WIDTH))
    rows = np.repeat(centres, 100, axis=0) + 0.3 * rng.standard_normal((COUNT, WIDTH))
    store = Store(tmp_path / "out", "digest", tmp_path)
    store.write_part(list(photos), rows.astype(np.float32))
    store.write(photos, {}, {})
    return store


def test_search_finds_what_comparing_all_finds(store):
    embeddings = store.load()
    index = search_index.open_index(store)
    recall = search_index.measure_recall(index, embeddings, 8)
    assert 0.95 < recall <= 1.0
    indices, cosines = nearest_neighbours(embeddings[:50], embeddings, 8)
    same = 0
    for row, (found, found_cosines) in enumerate(
        search_index.search(index, np.asarray(embeddings[:50]), embeddings, 8)
    ):
        assert found[0] == row and (np.diff(found_cosines) <= 0.0).all()
        common, exact, approximate = np.intersect1d(indices[row], found, return_indices=True)
        np.testing.assert_allclose(cosines[row, exact], found_cosines[approximate], atol=1e-9)
        same += len(common)
    assert same > 0.95 * indices.size


def test_recall_of_an_index_of_other_vectors_is_low(store):
    index = search_index.build_index(np.roll(store.load(), 500, axis=0))
    assert search_index.measure_recall(index, store.load(), 8) < 0.1


def test_index_is_kept_until_the_embeddings_change(store, photos, monkeypatch):
    search_index.open_index(store)
    with monkeypatch.context() as patched:
        patched.setattr(search_index, "build_index", lambda rows: pytest.fail("built again"))
        assert len(search_index.open_index(store)) == COUNT
    store.write(photos[:10], {}, {})
    assert len(search_index.open_index(store)) == 10


def test_damaged_index_is_an_error_that_names_it(store):
    store.search_index.write_bytes(b"cut")
    with pytest.raises(
        EmbedError, match=r"embeddings\.usearch: expected an index that usearch can read"
    ):
        search_index.open_index(store)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(search_index.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbedError, match=r'pip install -e ".*\[search-index\]"'):
        search_index.check_usearch()
