"""LARS against NumPy float64 and optax, step by step."""

import keras
import numpy as np
import pytest

from byol_tf.models.optimizers import (
    LARS,
    WarmupSchedule,
)
from tests.helpers.optimizing import (
    SCHEDULED,
    STEPS,
    assert_equal,
    gradients,
    largest_error,
    start,
    trained,
)
from tests.reference import optimizers as reference


class TestLARS:
    @pytest.mark.parametrize("l2", [0.0, 0.05])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_equals_numpy_over_50_steps(self, l2, momentum):
        received = trained(LARS(0.3, momentum=momentum, l2=l2, eta=0.02), gradients(), start())
        expected = reference.lars(start(), gradients(), [0.3] * STEPS, momentum, l2, 0.02)
        assert_equal(received, expected)
        assert all(
            np.abs(after - before).max() > 0.1
            for after, before in zip(expected, start(), strict=True)
        )

    def test_defaults_are_the_papers(self):
        config = LARS().get_config()
        assert {key: config[key] for key in ("learning_rate", "momentum", "l2", "eta")} == {
            "learning_rate": pytest.approx(0.2),
            "momentum": 0.9,
            "l2": 1.5e-6,
            "eta": 1e-3,
        }

    @pytest.mark.parametrize("excluded", [(), (0,)], ids=["no exclusions", "a kernel excluded"])
    def test_follows_a_schedule(self, excluded):
        received = trained(
            LARS(WarmupSchedule(0.5, STEPS, 7), l2=0.05, eta=0.02), gradients(), start(), excluded
        )
        expected = reference.lars(
            start(), gradients(), SCHEDULED, l2=0.05, eta=0.02, is_excluded=excluded
        )
        assert largest_error(received, expected) < 1e-5
        other = reference.lars(
            start(), gradients(), SCHEDULED, l2=0.05, eta=0.02, is_excluded=() if excluded else (0,)
        )
        assert largest_error(other[:1], expected[:1]) > 0.1

    def test_accumulates_gradients(self):
        received = trained(
            LARS(0.3, l2=0.05, eta=0.02, gradient_accumulation_steps=2), gradients(), start()
        )
        means = [
            [(a + b) / 2.0 for a, b in zip(*pair, strict=True)]
            for pair in zip(gradients()[::2], gradients()[1::2], strict=True)
        ]
        assert (
            largest_error(
                received, reference.lars(start(), means, [0.3] * len(means), l2=0.05, eta=0.02)
            )
            < 1e-5
        )

    @pytest.mark.parametrize(
        ("kind", "clip"),
        [("clipnorm", reference.clipped), ("global_clipnorm", reference.clipped_together)],
    )
    def test_clips_gradients(self, kind, clip):
        received = trained(LARS(0.3, l2=0.05, eta=0.02, **{kind: 1.5}), gradients(), start())
        expected = reference.lars(
            start(), [clip(values, 1.5) for values in gradients()], [0.3] * STEPS, l2=0.05, eta=0.02
        )
        assert largest_error(received, expected) < 1e-5
        assert (
            largest_error(
                reference.lars(start(), gradients(), [0.3] * STEPS, l2=0.05, eta=0.02), expected
            )
            > 0.01
        )

    def test_unscales_gradients_and_skips_those_that_overflowed(self):
        optimizer = keras.optimizers.LossScaleOptimizer(
            LARS(0.3, l2=0.05, eta=0.02), initial_scale=1024.0
        )
        scaled = [[1024.0 * value for value in values] for values in gradients()]
        scaled[-1] = [np.full_like(value, np.inf) for value in scaled[-1]]
        expected = reference.lars(start(), gradients()[:-1], [0.3] * (STEPS - 1), l2=0.05, eta=0.02)
        assert largest_error(trained(optimizer, scaled, start()), expected) < 1e-5
        assert float(optimizer.dynamic_scale) == 512.0

    def test_trust_ratio_is_1_for_zero_norms(self):
        weights = [np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)]
        steps = [[np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)]]
        zero, one = trained(LARS(0.5, l2=0.0), steps, weights)
        np.testing.assert_allclose(zero, -0.5)
        np.testing.assert_array_equal(one, 1.0)

    def test_bias_update_is_momentum_sgd(self):
        steps = [[values[2], values[3]] for values in gradients()]
        weights = start()[2:4]
        received = trained(LARS(0.3, l2=0.5, eta=0.001), steps, weights)
        expected = reference.sgd(weights, steps, [0.3] * STEPS, l2=0.0)
        for one, other in zip(received, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    def test_kernel_step_is_independent_of_gradient_size(self):
        steps = [values[:2] for values in gradients()[:3]]
        large = [[1000.0 * value for value in values] for values in steps]
        optimizers = (LARS(0.1, l2=0.0), LARS(0.1, l2=0.0))
        one, other = (
            trained(optimizer, values, start()[:2])
            for optimizer, values in zip(optimizers, (steps, large), strict=True)
        )
        for small_gradient, large_gradient in zip(one, other, strict=True):
            np.testing.assert_allclose(small_gradient, large_gradient, rtol=1e-6)


class TestLARSAgainstOptax:
    """`optax.lars` has the same trust ratio, and an `eps` in it that is 0 by default, as in
    deepmind-research. It multiplies by the rate before the momentum, not after: the same while the
    rate stays, another method while it changes, for its momentum then remembers the rates of old
    gradients."""

    @staticmethod
    def by_optax(rate, weights, steps, **kwargs) -> list[np.ndarray]:
        import jax
        import optax

        jax.config.update(
            "jax_platforms", "cpu"
        )  # before its first use: it would take a TPU or most of a GPU's memory from TensorFlow
        kernels = [weight.ndim > 1 for weight in weights]
        optimizer = optax.lars(
            rate, weight_decay_mask=kernels, trust_ratio_mask=kernels, momentum=0.9, **kwargs
        )
        weights = [jax.numpy.asarray(weight) for weight in weights]
        state = optimizer.init(weights)

        @jax.jit
        def step(values, weights, state):
            updates, state = optimizer.update(values, state, weights)
            return optax.apply_updates(weights, updates), state

        for values in steps:
            weights, state = step(values, weights, state)
        return [np.asarray(weight) for weight in weights]

    def test_equal_at_a_constant_rate(self):
        weights = [*start(), np.zeros((2, 2), np.float32)]
        steps = [[*values, np.ones((2, 2), np.float32)] for values in gradients()]
        received = trained(LARS(0.3, l2=0.05, eta=0.02), steps, weights)
        assert (
            largest_error(
                received,
                self.by_optax(0.3, weights, steps, weight_decay=0.05, trust_coefficient=0.02),
            )
            < 1e-5
        )

    def test_differs_under_a_schedule_by_where_the_rate_applies(self):
        schedule = WarmupSchedule(0.5, STEPS, 7)
        peers = self.by_optax(
            lambda count: np.float32(SCHEDULED) @ (np.arange(STEPS) == count),
            start(),
            gradients(),
            weight_decay=0.05,
            trust_coefficient=0.02,
        )
        received = trained(LARS(schedule, l2=0.05, eta=0.02), gradients(), start())
        assert largest_error(received, peers) > 0.01
        explained = reference.lars(
            start(), gradients(), SCHEDULED, l2=0.05, eta=0.02, rate_before_momentum=True
        )
        assert largest_error(peers, explained) < 1e-5

    def test_differs_with_an_epsilon(self):
        peers = self.by_optax(
            0.3, start(), gradients(), weight_decay=0.05, trust_coefficient=0.02, eps=1.0
        )
        received = trained(LARS(0.3, l2=0.05, eta=0.02), gradients(), start())
        assert largest_error(received[:2], peers[:2]) > 0.01
        explained = reference.lars(
            start(), gradients(), [0.3] * STEPS, l2=0.05, eta=0.02, epsilon=1.0
        )
        assert largest_error(peers, explained) < 1e-5
