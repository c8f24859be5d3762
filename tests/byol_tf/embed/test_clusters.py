"""Clusters of embeddings, and the photos to label first."""

import numpy as np

from byol_tf.embed.clusters import find_clusters, pick_photos


def bundles(*sizes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of all lengths around one direction a bundle, shuffled: `[n, 16]`, bundles."""
    rng = np.random.default_rng(seed)
    centres = np.eye(16)[: len(sizes)]
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    directions = centres[truth] + 0.05 * rng.normal(size=(len(truth), 16))
    return (directions * rng.uniform(1, 100, (len(truth), 1))).astype(np.float32), truth


def test_clusters_are_the_bundles_largest_first():
    embeddings, truth = bundles(30, 80, 50)
    clusters = find_clusters(embeddings, 3)
    assert (clusters.numbers == np.array([3, 1, 2])[truth]).all()
    members = clusters.members()
    assert [len(rows) for rows in members] == [80, 50, 30]
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for rows in members:
        assert (np.diff(clusters.cosines[rows]) <= 0).all()
        centre = directions[rows].mean(axis=0)
        np.testing.assert_allclose(
            clusters.cosines[rows], directions[rows] @ (centre / np.linalg.norm(centre)), atol=0.01
        )


def test_clusters_are_the_same_again_and_in_a_memory_map(tmp_path, monkeypatch):
    from byol_tf.embed import clusters

    embeddings, _ = bundles(200, 200, 200)
    np.save(tmp_path / "e.npy", embeddings)
    first = find_clusters(embeddings, 12)
    again = find_clusters(np.load(tmp_path / "e.npy", mmap_mode="r"), 12)
    assert (first.numbers == again.numbers).all() and (first.cosines == again.cosines).all()
    monkeypatch.setattr(clusters, "_MAX_FIT", 100)  # from a sample
    sampled = find_clusters(embeddings, 3)
    assert sorted(len(rows) for rows in sampled.members()) == [200, 200, 200]


def test_equal_photos_make_fewer_clusters():
    clusters = find_clusters(np.ones((5, 3), np.float32), 3)
    assert set(clusters.numbers) == {1} and len(clusters.members()) == 1


def test_picked_photos_are_of_different_bundles():
    embeddings, truth = bundles(10, 90, 40, 20)
    picked = pick_photos(embeddings, 4)
    assert truth[picked].tolist() == [1, 2, 3, 0]  # the largest bundle first
    assert pick_photos(embeddings, 4) == picked
    labelled = np.flatnonzero(np.isin(truth, (1, 3)))[:1].tolist() + picked[2:3]
    assert set(truth[pick_photos(embeddings, 2, labelled)]) == {0, 2} | (
        set() if truth[labelled[0]] == 1 else {1}
    )


def test_as_many_photos_are_picked_as_are_asked_for():
    equal = np.ones((6, 3), np.float32)
    assert sorted(pick_photos(equal, 6)) == list(range(6))
    assert sorted(pick_photos(equal, 4, labelled=[0, 3])) == [1, 2, 4, 5]
    assert sorted(pick_photos(equal, 9, labelled=[0, 3])) == [1, 2, 4, 5]
