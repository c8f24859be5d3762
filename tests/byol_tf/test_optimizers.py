"""Optimizers and rates against NumPy float64, step by step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.optimizers import LARS, SGD, Adam, WarmupSchedule, build_optimizer, spared
from tests.reference import optimizers as reference

SHAPES = {"conv": (3, 3, 2, 4), "dense": (5, 4), "bias": (4,), "gamma": (4,), "scalar": ()}
STEPS = 50


def start() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(0.0, 1.0, shape).astype(np.float32) for shape in SHAPES.values()]


def gradients() -> list[list[np.ndarray]]:
    draw = np.random.default_rng(1)
    return [[draw.normal(0.1, 1.0, shape).astype(np.float32) for shape in SHAPES.values()] for _ in range(STEPS)]


def trained(optimizer: keras.optimizers.Optimizer, steps: list[list[np.ndarray]], weights: list[np.ndarray]) -> list[np.ndarray]:
    """The weights after these gradients."""
    variables = [keras.Variable(weight) for weight in weights]
    optimizer.build(variables)

    @tf.function
    def step(*values):
        optimizer.apply_gradients(zip(values, variables, strict=True))

    for values in steps:
        step(*(tf.constant(value) for value in values))
    return [variable.numpy() for variable in variables]


def assert_equal(received: list[np.ndarray], expected: list[np.ndarray], of_largest: float = 1e-6) -> None:
    for name, one, other in zip(SHAPES, received, expected, strict=False):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=of_largest * np.abs(other).max(), err_msg=name)


class TestLARS:
    @pytest.mark.parametrize("l2", [0.0, 0.05])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_equals_numpy_over_50_steps(self, l2, momentum):
        received = trained(LARS(0.3, momentum=momentum, l2=l2, eta=0.02), gradients(), start())
        expected = reference.lars(start(), gradients(), [0.3] * STEPS, momentum, l2, 0.02)
        assert_equal(received, expected)
        assert all(np.abs(after - before).max() > 0.1 for after, before in zip(expected, start(), strict=True))

    def test_defaults_are_the_papers(self):
        config = LARS().get_config()
        assert {key: config[key] for key in ("learning_rate", "momentum", "l2", "eta")} == {
            "learning_rate": pytest.approx(0.2),
            "momentum": 0.9,
            "l2": 1.5e-6,
            "eta": 1e-3,
        }

    def test_follows_a_schedule(self):
        schedule = WarmupSchedule(0.5, STEPS, 7)
        rates = [reference.warmup_cosine(step, 0.5, STEPS, 7) for step in range(STEPS)]
        assert_equal(
            trained(LARS(schedule, eta=0.02), gradients(), start()), reference.lars(start(), gradients(), rates, l2=1.5e-6, eta=0.02)
        )

    def test_ratio_is_1_for_zero_weights_and_nothing_moves_for_zero_gradients(self):
        weights = [np.zeros((2, 2), np.float32), np.ones((2, 2), np.float32)]
        steps = [[np.ones((2, 2), np.float32), np.zeros((2, 2), np.float32)]]
        zero, one = trained(LARS(0.5, l2=0.0), steps, weights)
        np.testing.assert_allclose(zero, -0.5)
        np.testing.assert_array_equal(one, 1.0)

    def test_a_bias_moves_as_with_momentum_sgd(self):
        steps = [[values[2], values[3]] for values in gradients()]
        weights = start()[2:4]
        received = trained(LARS(0.3, l2=0.5, eta=0.001), steps, weights)
        expected = reference.sgd(weights, steps, [0.3] * STEPS, l2=0.0)
        for one, other in zip(received, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)

    def test_trust_ratio_makes_a_kernels_step_independent_of_the_gradients_size(self):
        steps = [values[:2] for values in gradients()[:3]]
        large = [[1000.0 * value for value in values] for values in steps]
        optimizers = (LARS(0.1, l2=0.0), LARS(0.1, l2=0.0))
        one, other = (trained(optimizer, values, start()[:2]) for optimizer, values in zip(optimizers, (steps, large), strict=True))
        for small_gradient, large_gradient in zip(one, other, strict=True):
            np.testing.assert_allclose(small_gradient, large_gradient, rtol=1e-6)


class TestL2Decay:
    @pytest.mark.parametrize("l2", [0.0, 0.05])
    def test_adam_equals_numpy(self, l2):
        received = trained(Adam(0.01, l2=l2), gradients(), start())
        # Keras' 1 - .999^t in float32 is off by up to 6e-5 in the first steps.
        assert_equal(received, reference.adam(start(), gradients(), [0.01] * STEPS, l2=l2), of_largest=1e-5)

    @pytest.mark.parametrize("l2", [0.0, 0.05])
    def test_sgd_equals_numpy(self, l2):
        received = trained(SGD(0.01, l2=l2, momentum=0.9), gradients(), start())
        assert_equal(received, reference.sgd(start(), gradients(), [0.01] * STEPS, l2=l2))

    @pytest.mark.parametrize("make", [LARS, Adam, SGD])
    def test_only_kernels_decay(self, make):
        zeros = [[np.zeros(shape, np.float32) for shape in SHAPES.values()]] * 5
        after = trained(make(0.1, l2=0.5), zeros, start())
        for name, weight, before in zip(SHAPES, after, start(), strict=True):
            if name in ("conv", "dense"):
                assert np.linalg.norm(weight) < np.linalg.norm(before), name
            else:
                np.testing.assert_array_equal(weight, before, err_msg=name)

    def test_spared_are_those_with_at_most_one_axis(self):
        assert [name for name, shape in SHAPES.items() if spared(keras.Variable(np.zeros(shape)))] == ["bias", "gamma", "scalar"]


@pytest.mark.parametrize(
    "optimizer",
    [
        LARS(0.3, momentum=0.8, l2=0.01, eta=0.02),
        LARS(WarmupSchedule(0.3, 50, 5), l2=0.01),
        Adam(0.02, l2=0.1, beta_1=0.8),
        SGD(WarmupSchedule(0.1, 40, 0, "constant"), l2=0.1, momentum=0.7),
    ],
    ids=["lars", "lars and schedule", "adam", "sgd and schedule"],
)
class TestSerialisation:
    def test_a_deserialised_optimizer_does_the_same(self, optimizer):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        fresh = type(optimizer).from_config(optimizer.get_config())
        for one, other in zip(trained(again, gradients()[:3], start()), trained(fresh, gradients()[:3], start()), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_its_state_can_be_carried_over(self, optimizer):
        whole = trained(type(optimizer).from_config(optimizer.get_config()), gradients()[:6], start())
        first = type(optimizer).from_config(optimizer.get_config())
        half = trained(first, gradients()[:3], start())
        second = type(optimizer).from_config(optimizer.get_config())
        variables = [keras.Variable(weight) for weight in half]
        second.build(variables)
        for variable, saved in zip(second.variables, [variable.numpy() for variable in first.variables], strict=True):
            variable.assign(saved)
        for values in gradients()[3:6]:
            second.apply_gradients(zip([tf.constant(value) for value in values], variables, strict=True))
        for one, other in zip(whole, variables, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-6, atol=1e-6)


class TestWarmupSchedule:
    @pytest.mark.parametrize("warmup", [0, 1, 10])
    def test_equals_numpy_at_every_step(self, warmup):
        schedule = WarmupSchedule(0.45, 100, warmup)
        rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(121)]
        np.testing.assert_allclose(rates, [reference.warmup_cosine(step, 0.45, 100, warmup) for step in range(121)], rtol=1e-5, atol=1e-7)

    def test_its_corners(self):
        schedule = WarmupSchedule(0.45, 100, 10)
        assert [float(schedule(step)) for step in (0, 5, 10, 55, 100)] == pytest.approx([0.0, 0.225, 0.45, 0.225, 0.0], abs=1e-6)

    def test_constant_stays_at_the_peak(self):
        schedule = WarmupSchedule(0.2, 100, 4, "constant")
        assert [float(schedule(step)) for step in (0, 1, 4, 60, 100)] == pytest.approx([0.0, 0.05, 0.2, 0.2, 0.2])

    def test_only_warm_up_is_possible(self):
        schedule = WarmupSchedule(1.0, 8, 8)
        assert [float(schedule(step)) for step in (0, 4, 7)] == pytest.approx([0.0, 0.5, 0.875])
        assert np.isfinite(float(schedule(8)))

    def test_another_kind_is_an_error(self):
        with pytest.raises(ValueError, match='expected "cosine" or "constant"; received \'linear\''):
            WarmupSchedule(0.1, 10, 0, "linear")


class TestBuildOptimizer:
    @pytest.mark.parametrize(("name", "kind", "field"), [("lars", LARS, "momentum"), ("adam", Adam, "beta_1"), ("sgd", SGD, "momentum")])
    def test_a_name_gives_its_optimizer(self, name, kind, field):
        optimizer = build_optimizer(name, WarmupSchedule(0.1, 10), 0.01, 0.8)
        assert type(optimizer) is kind
        assert optimizer.get_config()["l2"] == 0.01
        assert optimizer.get_config()[field] == 0.8
        assert not optimizer.get_config().get("nesterov", False)

    def test_another_name_is_an_error(self):
        with pytest.raises(ValueError, match='expected "lars", "adam" or "sgd"; received \'lamb\''):
            build_optimizer("lamb", WarmupSchedule(0.1, 10))
