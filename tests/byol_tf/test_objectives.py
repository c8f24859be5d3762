"""The loss and the collapse measures against NumPy, and at their limits."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.objectives import mean_cosine, normalize, regression_loss, spread
from tests.reference import learning as reference


def vectors(count: int = 12, width: int = 16, seed: int = 0, offset: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(offset, 1.0, (count, width)).astype(np.float32)


class TestRegressionLoss:
    def test_equals_numpy(self):
        loss = regression_loss(tf.constant(vectors(seed=0)), tf.constant(vectors(seed=1))).numpy()
        assert loss.shape == (12,)
        np.testing.assert_allclose(loss, reference.regression_loss(vectors(seed=0), vectors(seed=1)), rtol=1e-5, atol=1e-6)

    def test_goes_from_0_to_4_in_a_direction_and_is_2_at_right_angles(self):
        here = tf.constant([[3.0, 0.0, 4.0]])
        assert regression_loss(here, here).numpy() == pytest.approx([0.0], abs=1e-6)
        assert regression_loss(here, -here).numpy() == pytest.approx([4.0], abs=1e-6)
        assert regression_loss(here, tf.constant([[0.0, 7.0, 0.0]])).numpy() == pytest.approx([2.0], abs=1e-6)

    @pytest.mark.parametrize("scale", [1e-4, 1e4])
    def test_does_not_depend_on_length(self, scale):
        one, other = tf.constant(vectors(seed=0)), tf.constant(vectors(seed=1))
        np.testing.assert_allclose(regression_loss(one * scale, other), regression_loss(one, other / scale), rtol=1e-5)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_is_float32_for_half_precision(self, dtype):
        one, other = tf.cast(vectors(seed=0) * 300.0, dtype), tf.cast(vectors(seed=1), dtype)  # squares overflow float16
        loss = regression_loss(one, other)
        assert loss.dtype == tf.float32
        expected = reference.regression_loss(tf.cast(one, tf.float64).numpy(), tf.cast(other, tf.float64).numpy())
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)

    def test_and_its_gradient_are_finite_for_zeros(self):
        zeros = tf.Variable(tf.zeros((2, 4)))
        with tf.GradientTape() as tape:
            loss = regression_loss(zeros, tf.constant(vectors(2, 4)))
        np.testing.assert_allclose(loss, [1.0, 1.0], atol=1e-6)  # nothing against a vector of length 1
        assert np.isfinite(tape.gradient(loss, zeros).numpy()).all()

    def test_epsilon_is_on_the_squared_sum(self):
        np.testing.assert_allclose(normalize(tf.constant([[1e-7, 0.0]])).numpy(), [[0.1, 0.0]], rtol=1e-4)


class TestCollapseMeasures:
    def test_spread_and_mean_cosine_equal_numpy(self):
        batch = vectors(30, 10, offset=0.7)
        assert float(spread(tf.constant(batch))) == pytest.approx(reference.spread(batch), rel=1e-5)
        assert float(mean_cosine(tf.constant(batch))) == pytest.approx(reference.mean_cosine(batch), rel=1e-4)
        assert 0.2 < reference.mean_cosine(batch) < 0.5

    def test_of_one_vector_for_all(self):
        collapsed = tf.constant(np.tile(vectors(1, 32), (20, 1)) * np.linspace(1, 9, 20, dtype=np.float32)[:, None])
        assert float(spread(collapsed)) == pytest.approx(0.0, abs=1e-3)
        assert float(mean_cosine(collapsed)) == pytest.approx(1.0, abs=1e-5)

    def test_of_vectors_in_all_directions(self):
        scattered = tf.constant(vectors(4000, 32, offset=0.0))
        assert float(spread(scattered)) == pytest.approx(1.0, abs=0.01)
        assert float(mean_cosine(scattered)) == pytest.approx(0.0, abs=0.002)

    def test_of_two_opposite_heaps(self):
        heap = np.tile(vectors(1, 8), (10, 1))
        both = tf.constant(np.concatenate([heap, -heap]))
        assert float(mean_cosine(both)) == pytest.approx((9 - 10) / 19, abs=1e-5)

    @pytest.mark.parametrize("measure", [spread, mean_cosine])
    def test_are_float32_for_half_precision(self, measure):
        batch = tf.cast(vectors(20, 8), tf.bfloat16)
        assert measure(batch).dtype == tf.float32
        assert float(measure(batch)) == pytest.approx(float(measure(tf.cast(batch, tf.float32))), rel=1e-6)
