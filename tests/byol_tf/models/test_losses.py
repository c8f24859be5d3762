"""The losses and the collapse measures against NumPy, and at their limits."""

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.losses import (
    Objective,
    cross_entropy,
    mean_cosine,
    negative_term,
    normalize,
    projection_std,
    regression_loss,
)
from tests.helpers.replicas import replicas
from tests.reference import learning as reference


def vectors(count: int = 12, width: int = 16, seed: int = 0, offset: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(offset, 1.0, (count, width)).astype(np.float32)


class TestRegressionLoss:
    def test_equals_numpy(self):
        loss = regression_loss(tf.constant(vectors(seed=0)), tf.constant(vectors(seed=1))).numpy()
        assert loss.shape == (12,)
        np.testing.assert_allclose(
            loss, reference.regression_loss(vectors(seed=0), vectors(seed=1)), rtol=1e-5, atol=1e-6
        )

    def test_range_is_0_to_4(self):
        here = tf.constant([[3.0, 0.0, 4.0]])
        assert regression_loss(here, here).numpy() == pytest.approx([0.0], abs=1e-6)
        assert regression_loss(here, -here).numpy() == pytest.approx([4.0], abs=1e-6)
        assert regression_loss(here, tf.constant([[0.0, 7.0, 0.0]])).numpy() == pytest.approx(
            [2.0], abs=1e-6
        )

    @pytest.mark.parametrize("scale", [1e-4, 1e4])
    def test_ignores_vector_length(self, scale):
        one, other = tf.constant(vectors(seed=0)), tf.constant(vectors(seed=1))
        np.testing.assert_allclose(
            regression_loss(one * scale, other), regression_loss(one, other / scale), rtol=1e-5
        )

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_is_float32_for_half_precision(self, dtype):
        one, other = (
            tf.cast(vectors(seed=0) * 300.0, dtype),
            tf.cast(vectors(seed=1), dtype),
        )  # squares overflow float16
        loss = regression_loss(one, other)
        assert loss.dtype == tf.float32
        expected = reference.regression_loss(
            tf.cast(one, tf.float64).numpy(), tf.cast(other, tf.float64).numpy()
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)

    def test_loss_and_gradient_are_finite_for_zeros(self):
        zeros = tf.Variable(tf.zeros((2, 4)))
        with tf.GradientTape() as tape:
            loss = regression_loss(zeros, tf.constant(vectors(2, 4)))
        np.testing.assert_allclose(
            loss, [1.0, 1.0], atol=1e-6
        )  # nothing against a vector of length 1
        assert np.isfinite(tape.gradient(loss, zeros).numpy()).all()

    def test_epsilon_is_on_the_squared_sum(self):
        np.testing.assert_allclose(
            normalize(tf.constant([[1e-7, 0.0]])).numpy(), [[0.1, 0.0]], rtol=1e-4
        )


class TestCrossEntropy:
    def test_equals_numpy(self):
        loss = cross_entropy(tf.constant(vectors(seed=0)), tf.constant(vectors(seed=1)))
        np.testing.assert_allclose(
            loss, reference.cross_entropy(vectors(seed=0), vectors(seed=1)), rtol=1e-5
        )

    def test_extremes(self):
        assert cross_entropy(tf.ones((1, 8)), tf.zeros((1, 8))).numpy() == pytest.approx(
            [np.log(8.0)]
        )
        sure = tf.constant([[60.0, 0.0, 0.0]])
        assert cross_entropy(sure, sure).numpy() == pytest.approx([0.0], abs=1e-6)

    def test_is_float32_and_finite_for_half_precision(self):
        large = tf.cast(vectors(seed=0) * 1000.0, "float16")
        loss = cross_entropy(large, tf.cast(vectors(seed=1), "float16"))
        assert loss.dtype == tf.float32
        assert np.isfinite(loss).all()


def four(width: int = 16) -> dict[int, tf.Tensor]:
    return {view: tf.constant(vectors(width=width, seed=view)) for view in range(4)}


def other_four(width: int = 16) -> dict[int, tf.Tensor]:
    return {view: tf.constant(vectors(width=width, seed=10 + view)) for view in range(4)}


class TestObjective:
    def test_both_directions_are_added(self):
        p, z = four(), other_four()
        expected = reference.byol_loss((p[0], p[1]), (z[0], z[1]))
        assert float(Objective()(p, z)) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(
        ("similarity", "each"),
        [("cosine", reference.regression_loss), ("cross_entropy", reference.cross_entropy)],
    )
    @pytest.mark.parametrize(
        ("directions", "pairs"),
        [
            ("symmetric", [(0, 1), (1, 0)]),
            ("asymmetric", [(0, 1)]),
            ("asymmetric_2x", [(0, 1), (2, 3)]),
        ],
    )
    @pytest.mark.parametrize("weight", [1.0, 0.25])
    def test_every_variant_equals_numpy(self, similarity, each, directions, pairs, weight):
        p, z = four(), other_four()
        objective = Objective(similarity, directions, weight=weight)
        expected = weight * sum(each(p[view], z[other]).mean() for view, other in pairs)
        only = (
            {view: p[view] for view in objective.predicting_views},
            {view: z[view] for view in objective.target_views},
        )
        assert float(objective(*only)) == pytest.approx(expected, rel=1e-5)
        assert objective.view_count == 1 + max(max(pair) for pair in pairs)

    @pytest.mark.parametrize(("alpha", "beta"), [(0.1, 1.0), (0.5, 0.3), (1.0, 0.0)])
    @pytest.mark.parametrize("directions", ["symmetric", "asymmetric"])
    def test_negatives_are_the_extended_infonce(self, alpha, beta, directions):
        p, z = four(), other_four()
        objective = Objective(symmetrization=directions, negatives=beta, temperature=alpha)
        expected = 2.0 - reference.info_nce((p[0], p[1]), (z[0], z[1]), alpha, beta)
        if directions == "symmetric":
            expected += 2.0 - reference.info_nce((p[1], p[0]), (z[1], z[0]), alpha, beta)
        assert float(objective(p, z)) == pytest.approx(expected, rel=1e-5)
        assert objective.target_views == ((0, 1) if beta or directions == "symmetric" else (1,))

    @pytest.mark.parametrize("alpha", [0.1, 0.5])
    def test_without_predictor_and_target_it_is_simclr(self, alpha):
        z = four()
        loss = Objective(negatives=1.0, temperature=alpha, weight=1.0 / (4.0 * alpha))(z, z)
        assert float(loss) == pytest.approx(
            reference.nt_xent(z[0], z[1], alpha) + 1.0 / alpha, rel=1e-5
        )

    @pytest.mark.parametrize("alpha", [0.1, 0.5])
    def test_weight_of_the_recipe_gives_the_loss_of_simclrs_code(self, alpha):
        """But for a constant, 2 / alpha, that no gradient sees."""
        objective = Objective(negatives=1.0, temperature=alpha, weight=1.0 / (2.0 * alpha))
        for seed in (0, 2, 4):
            pair = {0: tf.constant(vectors(seed=seed)), 1: tf.constant(vectors(seed=seed + 1))}
            expected = reference.simclr_code_loss(pair[0].numpy(), pair[1].numpy(), alpha)
            assert float(objective(pair, pair)) - 2.0 / alpha == pytest.approx(expected, rel=1e-5)

    def test_negatives_lower_the_cosine(self):
        z = tf.Variable(vectors(8, 4, offset=2.0))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(negative_term(z, z, z, 0.2))
        before = reference.mean_cosine(z.numpy())
        z.assign_sub(0.5 * tape.gradient(loss, z))
        assert reference.mean_cosine(z.numpy()) < before - 0.001

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"similarity": "dot"},
                'similarity: expected "cosine" or "cross_entropy"; received \'dot\'',
            ),
            (
                {"symmetrization": "two"},
                'symmetrization: expected "symmetric", "asymmetric" or "asymmetric_2x"; received \'two\'',
            ),
            (
                {"negatives": 1.5, "temperature": 0.1},
                "negatives: expected a number from 0 to 1; received 1.5",
            ),
            (
                {"negatives": 0.5},
                "temperature: expected a number above 0, as negatives is 0.5; received None",
            ),
            (
                {"negatives": 0.5, "temperature": 0.1, "similarity": "cross_entropy"},
                'negatives: expected 0, as similarity "cross_entropy"',
            ),
        ],
    )
    def test_invalid_settings_are_errors(self, options, message):
        with pytest.raises(ValueError, match=message):
            Objective(**options)


@pytest.fixture(scope="module")
def optax():
    """A second public implementation. jax is told to stay off any accelerator: TensorFlow has
    it."""
    import jax
    import optax

    jax.config.update("jax_platforms", "cpu")
    return optax


@pytest.mark.long  # TestRegressionLoss and TestObjective have the same formulas in NumPy
class TestAgainstOptax:
    def test_byols_loss_is_twice_its_cosine_distance(self, optax):
        """optax measures 1 - cos; the paper's equation 2 is the squared distance, 2 - 2 cos. In one
        direction: optax adds none."""
        p, z = vectors(seed=0), vectors(seed=1)
        np.testing.assert_allclose(
            regression_loss(p, z), 2.0 * np.asarray(optax.losses.cosine_distance(p, z)), rtol=1e-5
        )

    @pytest.mark.parametrize("alpha", [0.1, 0.5])
    def test_beta_1_is_its_ntxent(self, optax, alpha):
        """The extended InfoNCE has 2 - 2 cos where NT-Xent has -cos / alpha: 4 alpha as large, and
        more by a constant."""
        first, second = vectors(seed=0), vectors(seed=1)
        labels = np.concatenate([np.arange(12)] * 2)
        expected = float(optax.losses.ntxent(np.concatenate([first, second]), labels, alpha))
        z = {0: tf.constant(first), 1: tf.constant(second)}
        assert float(Objective(negatives=1.0, temperature=alpha)(z, z)) == pytest.approx(
            4.0 * alpha * expected + 4.0, rel=1e-5
        )


def loss_and_gradients(p: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, ...]:
    count = tf.distribute.get_strategy().num_replicas_in_sync
    with tf.GradientTape() as tape:
        tape.watch((p, z))
        objective = Objective(negatives=1.0, temperature=0.3)
        loss = objective({0: p[0], 1: p[1]}, {0: z[0], 1: z[1]}) / count
    return loss, *tape.gradient(loss, (p, z))


def test_negatives_cross_replicas_with_gradients():
    draw, strategy = np.random.default_rng(0), replicas(2)
    p, z = draw.normal(0.3, 1.0, (2, 2, 8, 6)).astype("float32")  # [view, image, coordinate] each

    def mine(x: np.ndarray) -> tf.distribute.DistributedValues:
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(x[:, 4 * context.replica_id_in_sync_group :][:, :4])
        )

    with tf.device("/cpu:0"):
        whole_loss, *whole = loss_and_gradients(tf.constant(p), tf.constant(z))
    shared = strategy.run(tf.function(loss_and_gradients), args=(mine(p), mine(z)))
    losses, *gradients = (strategy.experimental_local_results(value) for value in shared)
    expected = (
        4.0 - reference.info_nce(p, z, 0.3, 1.0) - reference.info_nce(p[::-1], z[::-1], 0.3, 1.0)
    )
    assert len(losses) == 2
    assert [float(whole_loss), float(sum(losses))] == pytest.approx([expected] * 2, rel=1e-5)
    for parts, one in zip(gradients, whole, strict=True):
        assert np.abs(np.concatenate(parts, 1) - one).max() < 1e-5 * np.abs(one).max()


class TestCollapseMeasures:
    def test_projection_std_and_mean_cosine_equal_numpy(self):
        batch = vectors(30, 10, offset=0.7)
        assert float(projection_std(tf.constant(batch))) == pytest.approx(
            reference.spread(batch), rel=1e-5
        )
        assert float(mean_cosine(tf.constant(batch))) == pytest.approx(
            reference.mean_cosine(batch), rel=1e-4
        )
        assert 0.2 < reference.mean_cosine(batch) < 0.5

    def test_identical_vectors_are_collapsed(self):
        collapsed = tf.constant(
            np.tile(vectors(1, 32), (20, 1)) * np.linspace(1, 9, 20, dtype=np.float32)[:, None]
        )
        assert float(projection_std(collapsed)) == pytest.approx(0.0, abs=1e-3)
        assert float(mean_cosine(collapsed)) == pytest.approx(1.0, abs=1e-5)

    def test_scattered_vectors_are_healthy(self):
        scattered = tf.constant(vectors(4000, 32, offset=0.0))
        assert float(projection_std(scattered)) == pytest.approx(1.0, abs=0.01)
        assert float(mean_cosine(scattered)) == pytest.approx(0.0, abs=0.002)

    def test_two_opposite_clusters(self):
        heap = np.tile(vectors(1, 8), (10, 1))
        both = tf.constant(np.concatenate([heap, -heap]))
        assert float(mean_cosine(both)) == pytest.approx((9 - 10) / 19, abs=1e-5)

    def test_mean_cosine_of_one_vector_is_zero(self):
        assert float(mean_cosine(tf.constant([[3.0, 4.0]]))) == 0.0

    @pytest.mark.parametrize("measure", [projection_std, mean_cosine])
    def test_measures_are_float32_for_half_precision(self, measure):
        batch = tf.cast(vectors(20, 8), tf.bfloat16)
        assert measure(batch).dtype == tf.float32
        assert float(measure(batch)) == pytest.approx(
            float(measure(tf.cast(batch, tf.float32))), rel=1e-6
        )
