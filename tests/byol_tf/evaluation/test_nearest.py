"""The most similar rows, against all cosines."""

import numpy as np

from byol_tf.evaluation.nearest import nearest


def test_nearest_are_those_with_the_largest_cosine():
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(300, 16)).astype(np.float32)
    embeddings[7] = 0.0
    rows, cosines = nearest(embeddings, embeddings[3], 5, without=3)
    lengths = np.maximum(np.linalg.norm(embeddings.astype(np.float64), axis=1), 1e-300)
    expected = embeddings.astype(np.float64) @ embeddings[3].astype(np.float64) / lengths / lengths[3]
    expected[3] = -1
    np.testing.assert_array_equal(rows, np.argsort(-expected)[:5])
    np.testing.assert_allclose(cosines, np.sort(expected)[::-1][:5])
    assert len(nearest(embeddings[:4], embeddings[3], 9, without=3)[0]) == 3
