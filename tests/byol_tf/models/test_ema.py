"""Schedules of tau, and the target update in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.ema import ScheduledTau, TargetUpdate, constant_tau, cosine_tau, dropped_tau
from tests.helpers import tiny
from tests.helpers.replicas import replicas
from tests.reference import learning as reference


def at(schedule, *steps) -> list[float]:
    return [float(schedule(tf.constant(step, tf.float32))) for step in steps]


class TestSchedules:
    STEPS = (0, 1, 250, 333, 500, 999, 1000)

    def test_cosine_equals_the_papers_formula(self):
        expected = [reference.cosine_tau(step, 1000, 0.996) for step in self.STEPS]
        np.testing.assert_allclose(at(cosine_tau(0.996, 1000), *self.STEPS), expected, atol=1e-6)
        assert expected[0] == 0.996
        assert expected[-1] == 1.0

    def test_inverse_cosine_equals_the_papers_formula(self):
        expected = [reference.cosine_tau(step, 1000, 0.999, 0.5) for step in self.STEPS]
        np.testing.assert_allclose(
            at(cosine_tau(0.999, 1000, 0.5), *self.STEPS), expected, atol=1e-6
        )
        assert expected[4] == pytest.approx(0.7495)

    def test_cosine_stays_at_its_end(self):
        assert at(cosine_tau(0.9, 10), 10, 11, 500) == [1.0, 1.0, 1.0]
        assert at(cosine_tau(0.9, 10, 0.5), 10, 500) == pytest.approx([0.5, 0.5])

    def test_constant_and_dropped_tau(self):
        assert at(constant_tau(0.99), 0, 10**6) == pytest.approx([0.99, 0.99])
        assert at(dropped_tau(0.99, 1000), 0, 249, 250, 999) == pytest.approx(
            [0.99, 0.99, 0.0, 0.0]
        )
        assert at(dropped_tau(0.99, 1000, 0.5), 499, 500) == pytest.approx([0.99, 0.0])

    def test_unknown_schedule_is_an_error(self):
        with pytest.raises(
            ValueError, match=r"tau schedule: expected .* or \"drop\"; received 'linear'"
        ):
            ScheduledTau("linear", 0.9)


def test_update_equals_the_papers_formula():
    draw = np.random.default_rng(0)
    online, target = (
        [keras.Variable(np.float32(draw.normal(size=shape))) for shape in ((3, 4), (4,))]
        for _ in range(2)
    )
    expected = [variable.numpy().astype(np.float64) for variable in target]
    update = TargetUpdate(cosine_tau(0.7, 12))
    for step in range(12):
        for variable in online:
            variable.assign(draw.normal(size=variable.shape))
        tau = float(update.apply(list(zip(online, target, strict=True)), step))
        assert tau == pytest.approx(reference.cosine_tau(step, 12, 0.7), abs=1e-6)
        expected = [
            reference.followed(was, now.numpy().astype(np.float64), tau)
            for was, now in zip(expected, online, strict=True)
        ]
        for one, other in zip(target, expected, strict=True):
            np.testing.assert_allclose(one.numpy(), other, rtol=1e-5, atol=1e-6)


def trained(
    callbacks, epochs: int = 2, batches: int = 4, **compile_options
) -> tuple[tiny.BYOL, dict]:
    """Eagerly by default: tracing takes longer than these few steps."""
    model = tiny.model()
    options = {"jit_compile": False, "run_eagerly": True} | compile_options
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), **options)
    history = tiny.fit(model, batches, callbacks, epochs)
    return model, history


def parts(model: tiny.BYOL) -> list[np.ndarray]:
    networks = (
        model.encoder,
        model.projector,
        model.predictor,
        model.target_encoder,
        model.target_projector,
    )
    return tiny.weights(*networks)


class TestInTraining:
    def test_both_placements_give_the_same_bits(self):
        updates = [TargetUpdate(cosine_tau(0.9, 8), place) for place in ("step", "batch_end")]
        (inside, inside_history), (after, after_history) = (
            trained([update], run_eagerly=False) for update in updates
        )
        for one, other in zip(parts(inside), parts(after), strict=True):
            np.testing.assert_array_equal(one, other)
        assert inside_history["loss"] == after_history["loss"]
        expected = [
            reference.cosine_tau(step, 8, 0.9) for step in (3, 7)
        ]  # of each epoch's last step
        np.testing.assert_allclose(inside_history["tau"], expected, atol=1e-6)
        np.testing.assert_allclose(after_history["tau"], expected, atol=1e-6)

    def test_target_stays_after_a_skipped_step(self):
        first, second = tiny.views(4)
        first[0], first[2] = np.nan, np.nan
        batches = tf.data.Dataset.from_tensor_slices((first, second))
        ends = []
        for placement in ("step", "batch_end"):
            model = tiny.model(on_nonfinite="skip")
            model.compile(
                keras.optimizers.SGD(0.2, momentum=0.9), jit_compile=False, run_eagerly=True
            )
            model.fit(
                batches,
                callbacks=[TargetUpdate(constant_tau(0.5), placement)],
                verbose=0,
                shuffle=False,
            )
            assert model.skipped_steps == 2
            ends.append(parts(model))
        for one, other in zip(*ends, strict=True):
            np.testing.assert_array_equal(one, other)

    @pytest.fixture(scope="class")
    def plain(self):
        update = TargetUpdate(cosine_tau(0.6, 3))
        return parts(trained([update], epochs=1, batches=3, run_eagerly=False)[0])

    @pytest.mark.parametrize(
        "options",
        [{"steps_per_execution": 3}, {"jit_compile": True}],
        ids=["three steps at once", "XLA"],
    )
    def test_compiled_loop_gives_the_same_weights(self, plain, options):
        update = TargetUpdate(cosine_tau(0.6, 3))
        model, history = trained([update], 1, 3, run_eagerly=False, **options)
        for one, other in zip(plain, parts(model), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert history["tau"] == pytest.approx([reference.cosine_tau(2, 3, 0.6)], abs=1e-6)

    def test_target_averages_online_weights_after_each_step(self):
        online_after = []

        class Recorder(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                online_after.append(
                    [online.numpy().astype(np.float64) for online, _ in self.model.target_pairs()]
                )

        model = tiny.model()
        expected = [target.numpy().astype(np.float64) for _, target in model.target_pairs()]
        model.compile(keras.optimizers.SGD(0.2), jit_compile=False, run_eagerly=True)
        tiny.fit(model, 5, [TargetUpdate(cosine_tau(0.6, 5)), Recorder()])
        for step, online in enumerate(online_after):
            tau = reference.cosine_tau(step, 5, 0.6)
            expected = [
                reference.followed(was, now, tau) for was, now in zip(expected, online, strict=True)
            ]
        for (_, target), other in zip(model.target_pairs(), expected, strict=True):
            np.testing.assert_allclose(target.numpy(), other, rtol=1e-4, atol=1e-6)
        assert any(
            np.abs(online.numpy() - target.numpy()).max() > 1e-3
            for online, target in model.target_pairs()
        )

    def test_target_stays_without_the_callback(self):
        before = [target.numpy() for _, target in tiny.model().target_pairs()]
        with pytest.warns(
            UserWarning, match=r"neither BYOL\(tau=...\) nor a TargetUpdate callback"
        ):
            model, history = trained([])
        for (_, target), value in zip(model.target_pairs(), before, strict=True):
            np.testing.assert_array_equal(target.numpy(), value)
        assert "tau" not in history
        assert any(
            np.abs(online.numpy() - target.numpy()).max() > 1e-3
            for online, target in model.target_pairs()
        )

    @pytest.mark.parametrize("placement", ["step", "batch_end"])
    def test_later_fit_without_callback_leaves_the_target(self, placement):
        eager = placement == "batch_end"  # in a graph the update of a step is traced
        model, _ = trained([TargetUpdate(constant_tau(0.5), placement)], 1, run_eagerly=eager)
        before = [target.numpy() for _, target in model.target_pairs()]
        with pytest.warns(UserWarning, match="the target network won't move"):
            tiny.fit(model, 2)
        for (_, target), value in zip(model.target_pairs(), before, strict=True):
            np.testing.assert_array_equal(target.numpy(), value)

    def test_tau_1_keeps_the_target_and_tau_0_copies(self):
        before = [target.numpy() for _, target in tiny.model().target_pairs()]
        model, _ = trained([TargetUpdate(constant_tau(1.0))], epochs=1)
        for (_, target), value in zip(model.target_pairs(), before, strict=True):
            np.testing.assert_array_equal(target.numpy(), value)
        tiny.fit(
            model, 1, [TargetUpdate(constant_tau(0.0))]
        )  # one callback may be exchanged for another
        for online, target in model.target_pairs():
            np.testing.assert_allclose(target.numpy(), online.numpy(), rtol=1e-6, atol=1e-7)

    def test_second_fit_continues_the_schedule(self):
        model, _ = trained([TargetUpdate(cosine_tau(0.9, 20))], epochs=1)
        before = [(online.numpy(), target.numpy()) for online, target in model.target_pairs()]
        model.optimizer.learning_rate = 0.0
        model.optimizer.momentum = 0.0
        history = tiny.fit(model, 1, [TargetUpdate(cosine_tau(0.4, 20), "batch_end")])
        tau = reference.cosine_tau(4, 20, 0.4)
        assert history["tau"] == pytest.approx([tau], abs=1e-6)
        for (online, target), (_, now) in zip(before, model.target_pairs(), strict=True):
            np.testing.assert_allclose(
                now.numpy(), reference.followed(target, online, tau), rtol=1e-4, atol=1e-5
            )


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


class TestOwnUpdate:
    """`BYOL(tau=...)`, which a callback replaces for one `fit`."""

    def test_number_and_schedule_give_the_weights_of_the_callback(self):
        with_callback, history = trained([TargetUpdate(cosine_tau(0.6, 4))], epochs=1)
        own = tiny.model(tau=cosine_tau(0.6, 4))
        own.compile(keras.optimizers.SGD(0.2, momentum=0.9), jit_compile=False, run_eagerly=True)
        assert tiny.fit(own, 4)["tau"] == history["tau"]
        for one, other in zip(parts(with_callback), parts(own), strict=True):
            np.testing.assert_array_equal(one, other)
        assert tiny.model(tau=0.25).tau == constant_tau(0.25)

    @pytest.mark.parametrize("placement", ["step", "batch_end"])
    def test_callback_replaces_it_until_fit_ends_or_is_interrupted(self, placement):
        model = tiny.model(tau=0.9)
        eager = placement == "batch_end"
        model.compile(keras.optimizers.SGD(0.2), jit_compile=False, run_eagerly=eager)
        update = TargetUpdate(0.5, placement)
        assert tiny.fit(model, 1, [update])["tau"] == [0.5]
        with pytest.raises(KeyboardInterrupt):
            tiny.fit(model, 1, [update, Interrupting()])
        assert tiny.fit(model, 1)["tau"] == pytest.approx([0.9])
        model.tau = 0.75
        assert tiny.fit(model, 1)["tau"] == [0.75]

    @pytest.mark.parametrize("tau", [99, -0.1, float("nan"), lambda step: step + 2.0])
    def test_tau_outside_its_range_is_an_error(self, tau):
        with pytest.raises(ValueError, match=r"tau: expected .* from 0 to 1"):
            tiny.model(tau=tau)

    def test_wrong_schedules_are_errors(self):
        with pytest.raises(TypeError, match=r"a schedule such as constant_tau\(0.99\); received"):
            TargetUpdate("cosine")
        with pytest.raises(ValueError, match="expected total_steps of 1 or more; received 0"):
            cosine_tau(0.99, 0)
        with pytest.raises(
            ValueError, match='tau: expected None, as target "online" has no network'
        ):
            tiny.model(target="online", tau=0.9)

    def test_schedule_is_its_arguments(self):
        schedule = cosine_tau(0.9, 10, 0.5)
        saved = keras.saving.serialize_keras_object(schedule)
        assert keras.saving.deserialize_keras_object(saved) == schedule != cosine_tau(0.9, 11, 0.5)


class TestFirstStep:
    """Weights loaded after construction."""

    def fitted(self, model, tau: float = 1.0):
        model.tau = tau
        model.compile(keras.optimizers.SGD(0.0), jit_compile=False, run_eagerly=True)
        tiny.fit(model, 1)
        return model

    def gap(self, model) -> float:
        return max(np.abs(one.numpy() - two.numpy()).max() for one, two in model.target_pairs())

    def load(self, network: keras.Model, added: float) -> None:
        network.set_weights([weight + added for weight in network.get_weights()])

    def test_target_gets_weights_loaded_into_the_online_network(self):
        model = tiny.model()
        self.load(model.encoder, 1.0)
        assert self.gap(self.fitted(model)) == 0.0

    def test_target_keeps_weights_loaded_into_it(self):
        model = tiny.model()
        self.load(model.encoder, 1.0)
        self.load(model.target_encoder, 3.0)
        assert self.gap(self.fitted(model)) == pytest.approx(2.0)

    def test_target_of_a_trained_model_stays(self):
        model = self.fitted(tiny.model())
        self.load(model.encoder, 1.0)
        assert self.gap(self.fitted(model)) == pytest.approx(1.0)
        model.reset_target()
        assert self.gap(model) == 0.0


def test_unfrozen_batch_normalization_uses_batch_statistics_in_the_target_too():
    """A copy of a frozen layer is frozen."""
    encoder = tiny.encoder()
    encoder.trainable = False
    frozen, model = tiny.wrapped(encoder, tau=0.5), tiny.model(tau=0.5)
    frozen.encoder.trainable = True
    for network, other in (*zip(frozen.networks.values(), model.networks.values(), strict=True),):
        network.set_weights(other.get_weights())
    for byol in (frozen, model):
        byol.compile(keras.optimizers.SGD(0.2), jit_compile=False, run_eagerly=True)
        tiny.fit(byol, 2)
    for one, other in zip(parts(frozen), parts(model), strict=True):
        np.testing.assert_array_equal(one, other)


def test_unknown_placement_is_an_error():
    with pytest.raises(ValueError, match='expected "step" or "batch_end"; received \'epoch_end\''):
        TargetUpdate(constant_tau(0.9), "epoch_end")


def test_model_without_target_is_an_error():
    with pytest.raises(TypeError, match=r"needs a byol_tf.BYOL model, .*; received Functional"):
        TargetUpdate(constant_tau(0.9)).set_model(tiny.encoder())


def trained_on(strategy: tf.distribute.Strategy) -> tuple[tiny.BYOL, dict, list[np.ndarray]]:
    with strategy.scope():
        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    history = tiny.fit(model, 3, [TargetUpdate(cosine_tau(0.8, 3))])
    return model, history, parts(model)


def test_two_replicas_equal_one_with_the_same_global_batch():
    before = [target.numpy() for _, target in tiny.model().target_pairs()]
    _, one_history, one_weights = trained_on(replicas(1))
    strategy = replicas(2)
    two, two_history, two_weights = trained_on(strategy)
    assert strategy.num_replicas_in_sync == 2
    assert two.projector.get_layer("projector_bn").synchronized
    assert int(two.optimizer.iterations.numpy()) == 3
    for a, b in zip(one_weights, two_weights, strict=True):
        # Biases before a BN get a gradient of rounding errors alone: they stay near 0, and are
        # measured against 0.1.
        assert np.abs(a - b).max() < 1e-5 * max(np.abs(a).max(), 0.1)
    assert two_history["loss"] == pytest.approx(one_history["loss"], rel=1e-5)
    for history in (one_history, two_history):
        assert history["tau"] == pytest.approx([reference.cosine_tau(2, 3, 0.8)], abs=1e-6)
    assert any(
        np.abs(was - target.numpy()).max() > 1e-3
        for was, (_, target) in zip(before, two.target_pairs(), strict=True)
    )
    for variable in two.target_encoder.variables:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())
