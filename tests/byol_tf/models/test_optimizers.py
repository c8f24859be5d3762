"""Optimizers and rates against NumPy float64, step by step; LARS is in test_lars.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.optimizers import (
    LARS,
    SGD,
    Adam,
    AdamW,
    Lamb,
    WarmupSchedule,
    build_optimizer,
    exclude_norm_and_bias,
    is_excluded,
)
from tests.helpers.optimizing import (
    MAKERS,
    SCHEDULED,
    SHAPES,
    STEPS,
    assert_equal,
    gradients,
    largest_error,
    start,
    trained,
)
from tests.helpers.replicas import replicas
from tests.reference import optimizers as reference


@keras.saving.register_keras_serializable(package="test_optimizers")
class Scale(keras.layers.Layer):
    """A normalisation layer by its own word."""

    is_normalization = True

    def build(self, shape):
        self.factor = self.add_weight(shape=shape[1:], initializer="ones")

    def call(self, inputs):
        return inputs * self.factor


class TestDecoupledDecay:
    @pytest.mark.parametrize("decay", [0.0, 0.5])
    @pytest.mark.parametrize(
        ("make", "expect"),
        [(AdamW, reference.adamw), (Lamb, reference.lamb)],
        ids=["adamw", "lamb"],
    )
    def test_equals_numpy_under_a_schedule(self, make, expect, decay):
        received = trained(
            make(WarmupSchedule(0.05, STEPS, 7), weight_decay=decay, beta_1=0.8),
            gradients(),
            start(),
        )
        expected = expect(
            start(), gradients(), [rate / 10.0 for rate in SCHEDULED], decay, beta_1=0.8
        )
        assert largest_error(received, expected) < 1e-5
        assert all(
            np.abs(after - before).max() > 0.03
            for after, before in zip(expected, start(), strict=True)
        )

    @pytest.mark.parametrize(
        ("make", "keras_own"), [(AdamW, keras.optimizers.AdamW), (Lamb, keras.optimizers.Lamb)]
    )
    def test_equals_keras_own_with_the_same_exclusions(self, make, keras_own):
        received = trained(make(0.01, weight_decay=0.5), gradients(), start(), excluded=(0,))
        expected = trained(
            keras_own(0.01, weight_decay=0.5), gradients(), start(), excluded=(0, 2, 3, 4)
        )
        assert_equal(received, expected)


class TestL2Decay:
    @pytest.mark.parametrize("l2", [0.0, 0.05])
    def test_adam_equals_numpy(self, l2):
        received = trained(Adam(0.01, l2=l2), gradients(), start())
        # Keras' 1 - .999^t in float32 is off by up to 6e-5 in the first steps.
        assert_equal(
            received, reference.adam(start(), gradients(), [0.01] * STEPS, l2=l2), of_largest=1e-5
        )

    @pytest.mark.parametrize("l2", [0.0, 0.05])
    def test_sgd_equals_numpy(self, l2):
        received = trained(SGD(0.01, l2=l2, momentum=0.9), gradients(), start())
        assert_equal(received, reference.sgd(start(), gradients(), [0.01] * STEPS, l2=l2))


class TestExcludeNormAndBias:
    @pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
    def test_only_kernels_decay(self, make):
        zeros = [[np.zeros(shape, np.float32) for shape in SHAPES.values()]] * 5
        after = trained(make(0.1), zeros, start())
        for name, weight, before in zip(SHAPES, after, start(), strict=True):
            if name in ("conv", "dense"):
                assert np.linalg.norm(weight) < np.linalg.norm(before), name
            else:
                np.testing.assert_array_equal(weight, before, err_msg=name)

    def test_variables_of_at_most_one_axis_are_excluded(self):
        assert [
            name for name, shape in SHAPES.items() if is_excluded(keras.Variable(np.zeros(shape)))
        ] == ["bias", "gamma", "scalar"]

    @staticmethod
    def network() -> keras.Model:
        """Layers with misleading names, and with biases and normalisation parameters of two axes.
        Only the kernels shall decay."""
        images = keras.Input((6, 3))
        x = keras.layers.LayerNormalization(axis=(1, 2), name="kernel")(images)
        x = keras.layers.SpectralNormalization(
            keras.layers.Dense(4, name="bias"), name="layer_normalization"
        )(x)
        x = keras.layers.EinsumDense(
            "abc,cd->abd", output_shape=(6, 4), bias_axes="bd", name="dense"
        )(x)
        inner = keras.Sequential(
            [
                keras.Input((6, 4)),
                Scale(name="conv"),
                keras.layers.Dense(5, name="batch_normalization_gamma"),
            ],
            name="inner",
        )
        x = keras.layers.RMSNormalization()(keras.layers.GroupNormalization(5)(inner(x)))
        network = keras.Model(images, keras.layers.BatchNormalization()(x))
        for variable in network.trainable_variables:
            variable.assign(np.ones(variable.shape))
        return network

    @pytest.mark.parametrize("name", [*MAKERS, "scaled"])
    def test_exclusion_by_layer_type_ignores_shape(self, name):
        network = self.network()
        optimizer = (
            keras.optimizers.LossScaleOptimizer(LARS(0.1, l2=0.5))
            if name == "scaled"
            else MAKERS[name](0.1)
        )
        found = {id(variable) for variable in exclude_norm_and_bias(optimizer, network)}
        variables = network.trainable_variables
        two_axes = [
            variable.path
            for variable in variables
            if id(variable) in found and len(variable.shape) == 2
        ]
        assert (
            len(two_axes) == 4
        )  # gamma and beta of LayerNormalization, EinsumDense's bias, Scale's factor
        optimizer.build(variables)
        optimizer.apply_gradients([(tf.zeros(variable.shape), variable) for variable in variables])
        decayed = [variable.path for variable in variables if np.any(variable.numpy() != 1.0)]
        assert decayed == [
            "layer_normalization/bias/kernel",
            "dense/kernel",
            "inner/batch_normalization_gamma/kernel",
        ]

    def test_lars_has_no_trust_ratio_for_excluded(self):
        networks = [self.network(), self.network()]
        optimizer = LARS(0.25, l2=0.5)
        exclude_norm_and_bias(optimizer, networks)
        variables = [variable for network in networks for variable in network.trainable_variables]
        optimizer.build(variables)
        optimizer.apply_gradients([(tf.ones(variable.shape), variable) for variable in variables])
        full = [variable.path for variable in variables if np.all(variable.numpy() == 0.75)]
        assert full == [variable.path for variable in variables if variable.name != "kernel"]

    def test_built_optimizer_or_unbuilt_model_is_an_error(self):
        optimizer, network = LARS(), self.network()
        with pytest.raises(
            ValueError, match='expected built models; received "early", which is not'
        ):
            exclude_norm_and_bias(
                optimizer, [network, keras.Sequential([keras.layers.Dense(2)], name="early")]
            )
        optimizer.build(network.trainable_variables)
        with pytest.raises(
            ValueError,
            match='expected an optimizer that is not built yet; received "lars", which is',
        ):
            exclude_norm_and_bias(optimizer, network)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
class TestGroupRates:
    """With one rate for a group and another for the rest, each weight moves as it would where its
    rate is everybody's."""

    STEPS = gradients()[:6]

    def assert_each_moves_at_its_rate(self, build, rest, rate, group=(0, 3), traced=False):
        mixed = trained(
            build(rest), self.STEPS, start(), groups=dict.fromkeys(group, rate), traced=traced
        )
        ends = {
            value: trained(build(value), self.STEPS, start(), traced=traced)
            for value in (rest, rate)
        }
        for index, name in enumerate(SHAPES):
            expected, other = (
                (ends[rate], ends[rest]) if index in group else (ends[rest], ends[rate])
            )
            np.testing.assert_allclose(
                mixed[index], expected[index], rtol=1e-6, atol=1e-6, err_msg=name
            )
            assert np.abs(mixed[index] - other[index]).max() > 1e-4, name

    def test_constant_rate_for_the_group(self, make):
        self.assert_each_moves_at_its_rate(make, WarmupSchedule(0.1, 8, 2), 0.02, traced=True)

    def test_schedule_for_the_group_with_accumulation_and_clipping(self, make):
        def build(rate):
            return make(rate, gradient_accumulation_steps=2, global_clipnorm=1.0)

        self.assert_each_moves_at_its_rate(build, 0.02, WarmupSchedule(0.1, 8, 2))

    def test_group_rates_with_loss_scale_and_clipping(self, make):
        def build(rate):
            return keras.optimizers.LossScaleOptimizer(make(rate, clipnorm=1.0), initial_scale=1.0)

        self.assert_each_moves_at_its_rate(build, 0.02, 0.1)

    def test_last_call_replaces_and_config_has_no_groups(self, make):
        variable, optimizer = keras.Variable(np.ones((2, 2), np.float32)), make(0.1)
        optimizer.set_group_rate([variable], 0.5)
        optimizer.set_group_rate(iter([variable]), 0.0)
        optimizer.build([variable])
        optimizer.apply_gradients([(tf.ones((2, 2)), variable)])
        np.testing.assert_array_equal(variable.numpy(), 1.0)
        again = type(optimizer).from_config(optimizer.get_config())
        again.build([variable])
        again.apply_gradients([(tf.ones((2, 2)), variable)])
        assert np.all(variable.numpy() < 1.0)

    def test_empty_group_or_invalid_rate_is_an_error(self, make):
        with pytest.raises(ValueError, match="expected at least one variable; received none"):
            make(0.1).set_group_rate([], 0.1)
        with pytest.raises(
            ValueError, match="expected a float or a LearningRateSchedule; received 'high'"
        ):
            make(0.1).set_group_rate([keras.Variable(1.0)], "high")


def trained_on_two(make, steps: list, excluded: int, groups: dict) -> list[tuple[np.ndarray, ...]]:
    """The weights of both replicas, each of which gets half of every gradient."""
    strategy = replicas(2)
    with strategy.scope():
        variables = [keras.Variable(weight) for weight in start()]
        optimizer = make(0.02)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        inner.exclude_from_weight_decay(var_list=[variables[excluded]])
        for index, rate in groups.items():
            inner.set_group_rate([variables[index]], rate)
        optimizer.build(variables)

    def apply(*values):
        halves = [value / 2.0 for value in values]
        optimizer.apply_gradients(zip(halves, variables, strict=True))

    step = tf.function(lambda *values: strategy.run(apply, values))
    for values in steps:
        step(*(tf.constant(value) for value in values))
    return [
        tuple(part.numpy() for part in strategy.experimental_local_results(variable.value))
        for variable in variables
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", [*MAKERS, "scaled"])
def test_two_replicas_equal_one_with_groups_and_exclusions(name):
    def scaled(rate):
        return keras.optimizers.LossScaleOptimizer(MAKERS["lars"](rate), initial_scale=1.0)

    make, steps = MAKERS.get(name, scaled), gradients()[:6]
    groups = {0: WarmupSchedule(0.1, 8, 2), 3: 0.3}
    two = trained_on_two(make, steps, 1, groups)
    one = trained(make(0.02), steps, start(), excluded=(1,), groups=groups, traced=False)
    alike = trained(make(0.02), steps, start(), excluded=(1,), traced=False)
    for first, second in two:
        np.testing.assert_array_equal(first, second)
    assert largest_error([first for first, _ in two], one) < 1e-5
    assert min(np.abs(one[index] - alike[index]).max() for index in groups) > 1e-3


@pytest.mark.parametrize(
    "optimizer",
    [
        LARS(0.3, momentum=0.8, l2=0.01, eta=0.02),
        LARS(WarmupSchedule(0.3, 50, 5), l2=0.01),
        Adam(0.02, l2=0.1, beta_1=0.8),
        AdamW(WarmupSchedule(0.02, 40, 5), weight_decay=0.1, beta_1=0.8),
        Lamb(0.02, weight_decay=0.1, beta_1=0.8),
        SGD(WarmupSchedule(0.1, 40, 0, "constant"), l2=0.1, momentum=0.7),
    ],
    ids=["lars", "lars and schedule", "adam", "adamw and schedule", "lamb", "sgd and schedule"],
)
class TestSerialisation:
    def test_deserialised_optimizer_equals_the_original(self, optimizer):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        fresh = type(optimizer).from_config(optimizer.get_config())
        for one, other in zip(
            trained(again, gradients()[:3], start()),
            trained(fresh, gradients()[:3], start()),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)

    def test_state_can_be_restored(self, optimizer):
        whole = trained(
            type(optimizer).from_config(optimizer.get_config()), gradients()[:6], start()
        )
        first = type(optimizer).from_config(optimizer.get_config())
        half = trained(first, gradients()[:3], start())
        second = type(optimizer).from_config(optimizer.get_config())
        variables = [keras.Variable(weight) for weight in half]
        second.build(variables)
        for variable, saved in zip(
            second.variables, [variable.numpy() for variable in first.variables], strict=True
        ):
            variable.assign(saved)
        for values in gradients()[3:6]:
            second.apply_gradients(
                zip([tf.constant(value) for value in values], variables, strict=True)
            )
        for one, other in zip(whole, variables, strict=True):
            np.testing.assert_allclose(one, other.numpy(), rtol=1e-6, atol=1e-6)


class TestWarmupSchedule:
    @pytest.mark.parametrize("warmup", [0, 1, 10])
    def test_equals_numpy_at_every_step(self, warmup):
        schedule = WarmupSchedule(0.45, 100, warmup)
        rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(121)]
        np.testing.assert_allclose(
            rates,
            [reference.warmup_cosine(step, 0.45, 100, warmup) for step in range(121)],
            rtol=1e-5,
            atol=1e-7,
        )

    def test_values_at_warmup_boundaries(self):
        schedule = WarmupSchedule(0.45, 100, 10)
        assert [float(schedule(step)) for step in (0, 5, 10, 55, 100)] == pytest.approx(
            [0.0, 0.225, 0.45, 0.225, 0.0], abs=1e-6
        )

    def test_constant_stays_at_the_peak(self):
        schedule = WarmupSchedule(0.2, 100, 4, "constant")
        assert [float(schedule(step)) for step in (0, 1, 4, 60, 100)] == pytest.approx(
            [0.0, 0.05, 0.2, 0.2, 0.2]
        )

    def test_warmup_may_last_the_whole_run(self):
        schedule = WarmupSchedule(1.0, 8, 8)
        assert [float(schedule(step)) for step in (0, 4, 7)] == pytest.approx([0.0, 0.5, 0.875])
        assert np.isfinite(float(schedule(8)))

    def test_unknown_decay_is_an_error(self):
        with pytest.raises(
            ValueError, match='expected "cosine" or "constant"; received \'linear\''
        ):
            WarmupSchedule(0.1, 10, 0, "linear")


class TestBuildOptimizer:
    @pytest.mark.parametrize(
        ("name", "kind", "decay", "momentum"),
        [
            ("lars", LARS, "l2", "momentum"),
            ("adam", Adam, "l2", "beta_1"),
            ("adamw", AdamW, "weight_decay", "beta_1"),
            ("lamb", Lamb, "weight_decay", "beta_1"),
            ("sgd", SGD, "l2", "momentum"),
        ],
    )
    def test_optimizer_by_name(self, name, kind, decay, momentum):
        optimizer = build_optimizer(name, WarmupSchedule(0.1, 10), 0.01, 0.8)
        assert type(optimizer) is kind
        config = optimizer.get_config()
        assert (config[decay], config[momentum], config.get("nesterov", False)) == (
            0.01,
            0.8,
            False,
        )
        assert decay == "weight_decay" or config["weight_decay"] is None

    def test_unknown_optimizer_is_an_error(self):
        with pytest.raises(
            ValueError,
            match='expected "lars", "adam", "adamw", "lamb" or "sgd"; received \'rmsprop\'',
        ):
            build_optimizer("rmsprop", WarmupSchedule(0.1, 10))


@pytest.mark.parametrize("name", MAKERS)
def test_decay_of_all_parameters(name):
    """SimSiam's and the STL-10 paper's code decays biases and normalisation parameters too."""
    optimizer = MAKERS[name](0.1, exclude_1d=False)
    zeros = [[np.zeros_like(weight) for weight in start()]]
    for before, after in zip(start(), trained(optimizer, zeros, start()), strict=True):
        np.testing.assert_array_equal(np.sign(after - before), -np.sign(before))
    assert type(optimizer).from_config(optimizer.get_config()).exclude_1d is False


def test_sgd_that_decays_all_parameters_equals_numpy():
    optimizer = SGD(0.1, l2=0.5, momentum=0.9, exclude_1d=False)
    expected = [weight.astype(np.float64) for weight in start()]
    momenta = [np.zeros_like(weight) for weight in expected]
    for values in gradients():
        for weight, momentum, gradient in zip(expected, momenta, values, strict=True):
            momentum *= 0.9
            momentum -= 0.1 * (gradient + 0.5 * weight)
            weight += momentum
    assert_equal(trained(optimizer, gradients(), start()), expected)
