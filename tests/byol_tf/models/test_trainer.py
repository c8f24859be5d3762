"""Several steps per call, replicas and micro-batches give the numbers of single steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, LARS, Objective, build_encoder, mlp_head
from byol_tf.models.ema import TargetUpdate, constant_tau, cosine_tau
from tests.helpers import tiny
from tests.helpers.replicas import replicas
from tests.reference import learning as reference


def parts(model: BYOL) -> list[np.ndarray]:
    return tiny.weights(*model.networks.values(), model.target_encoder, model.target_projector)


def trained(
    batches: int = 6, epochs: int = 2, accumulation: int = 1, **compile_options
) -> tuple[BYOL, dict]:
    model = tiny.model(gradient_accumulation_steps=accumulation)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), **{"jit_compile": False} | compile_options
    )
    return model, tiny.fit(
        model, batches, [TargetUpdate(cosine_tau(0.8, batches * epochs))], epochs
    )


class TestStepsPerExecution:
    @pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.long)])
    def test_several_steps_per_call_equal_single_steps(self, jit):
        one, one_history = trained()
        several, several_history = trained(steps_per_execution=3, jit_compile=jit)
        for a, b in zip(parts(one), parts(several), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
        for name in ("loss", "tau", "learning_rate", "projection_std", "projection_cosine"):
            assert several_history[name] == pytest.approx(one_history[name], rel=1e-4), name
        assert int(several.optimizer.iterations.numpy()) == 12

    def test_callbacks_get_logs_of_the_last_step_per_call(self):
        heard = []

        class Listener(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                heard.append(
                    (batch, int(self.model.optimizer.iterations.numpy()), float(logs["tau"]))
                )

        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.05), steps_per_execution=3, jit_compile=False)
        tiny.fit(model, 6, [TargetUpdate(cosine_tau(0.8, 6)), Listener()])
        assert [(batch, steps) for batch, steps, _ in heard] == [(2, 3), (5, 6)]
        assert [tau for *_, tau in heard] == pytest.approx(
            [reference.cosine_tau(step, 6, 0.8) for step in (2, 5)], abs=1e-6
        )

    @pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras', if it's unknown
    @pytest.mark.parametrize("cardinality", ["known", "unknown"])
    def test_epoch_may_end_within_a_call(self, cardinality):
        one, expected = trained(batches=4, epochs=2)
        batches = tiny.dataset(4)
        if cardinality == "unknown":
            batches = batches.filter(lambda *views: True)
        model = tiny.model()
        model.compile(
            keras.optimizers.SGD(0.05, momentum=0.9), steps_per_execution=3, jit_compile=False
        )
        reports = []
        report = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda *_, **__: reports.append(len(model.last_call.losses))
        )
        update = TargetUpdate(cosine_tau(0.8, 8))
        history = model.fit(batches, epochs=2, callbacks=[update, report], verbose=0).history
        assert reports == [3, 1, 3, 1]
        assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert history["tau"] == pytest.approx(expected["tau"], rel=1e-6)
        assert model.steps_seen == 8
        for a, b in zip(parts(one), parts(model), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

    def test_step_is_traced_once(self):
        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.05), steps_per_execution=2, jit_compile=False)
        traces, step = [], model.train_step
        model.train_step = lambda data: traces.append(1) or step(data)
        tiny.fit(model, 6, [TargetUpdate(constant_tau(0.9))], epochs=3)
        assert len(traces) == 1

    @pytest.mark.parametrize("steps", [1, 4])  # 4 of the 6 batches, then the other 2
    def test_eager_run_equals_graph(self, steps):
        eager, history = trained(epochs=1, run_eagerly=True, steps_per_execution=steps)
        graph, expected = trained(epochs=1)
        assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        for a, b in zip(parts(eager), parts(graph), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def independent(accumulation: int = 1, **options) -> BYOL:
    """Without batch statistics, micro-batches give the gradients of the batch."""
    keras.utils.set_random_seed(0)
    encoder = build_encoder("convnet", 32, 0.5, normalization="layer")
    heads = [
        mlp_head(width, 32, 16, name, normalization="layer")
        for width, name in ((64, "projector"), (16, "predictor"))
    ]
    model = BYOL(encoder, *heads, gradient_accumulation_steps=accumulation, **options)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=False)
    return model


def images(steps: int, batch: int = 8) -> tf.data.Dataset:
    draw = np.random.default_rng(0)
    views = [draw.normal(size=(steps, batch, 32, 32, 3)).astype(np.float32) for _ in range(2)]
    return tf.data.Dataset.from_tensor_slices(tuple(views))


class TestAccumulation:
    @pytest.mark.parametrize(("accumulation", "recompute"), [(2, False), (4, True)])
    def test_micro_batches_give_the_step_of_the_batch(self, accumulation, recompute):
        at_once, accumulated = independent(), independent(accumulation, rematerialize=recompute)
        histories = [
            model.fit(
                images(5), callbacks=[TargetUpdate(cosine_tau(0.8, 5))], verbose=0, shuffle=False
            ).history
            for model in (at_once, accumulated)
        ]
        for a, b in zip(parts(at_once), parts(accumulated), strict=True):
            assert np.abs(a - b).max() <= 1e-5 * max(np.abs(a).max(), 0.1)
        assert histories[0]["loss"] == pytest.approx(histories[1]["loss"], rel=1e-5)
        assert (
            histories[0]["tau"]
            == histories[1]["tau"]
            == pytest.approx([reference.cosine_tau(4, 5, 0.8)], abs=1e-6)
        )
        assert int(accumulated.optimizer.iterations.numpy()) == 5

    def test_steps_that_do_not_divide_the_batch_are_an_error(self):
        with pytest.raises(
            ValueError,
            match="gradient_accumulation_steps: expected a divisor of the 8 images of a replica's batch; received "
            "3",
        ):
            independent(3).train_step(next(iter(images(1))))

    def test_accumulating_optimizer_is_an_error(self):
        with pytest.raises(
            ValueError,
            match=r"expected no gradient_accumulation_steps, .* BYOL\(gradient_accumulation_steps=...\) accumulates",
        ):
            tiny.model().compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))

    def test_no_micro_batches_are_an_error(self):
        with pytest.raises(ValueError, match="gradient_accumulation_steps: expected 1 or more"):
            tiny.model(gradient_accumulation_steps=0)

    def test_no_optimizer_is_an_error(self):
        with pytest.raises(ValueError, match="optimizer: expected an optimizer or its name"):
            tiny.model().compile(None)

    def test_empty_metrics_are_none(self):
        model = tiny.model(tau=0.9)
        model.compile("sgd", jit_compile=False, metrics=[], weighted_metrics=[])
        assert "loss" in tiny.fit(model, 1)


class TestJit:
    def test_auto_is_off_without_a_gpu(self):
        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.1))
        assert model.jit_compile == bool(tf.config.list_physical_devices("GPU"))

    @pytest.mark.long  # test_engines has one in the fast suite
    @pytest.mark.parametrize("normalization", ["batch", "group"])
    def test_the_whole_step_compiles_with_xla(self, normalization):
        """A stand-in for a TPU: both networks, loss, LARS and target update have no op that
        XLA lacks."""
        keras.utils.set_random_seed(0)
        encoder = build_encoder("convnet", 32, 0.5, normalization=normalization)
        heads = [
            mlp_head(width, 32, 16, name, normalization=normalization)
            for width, name in ((64, "projector"), (16, "predictor"))
        ]
        model = BYOL(encoder, *heads, Objective(negatives=0.5, temperature=0.2), rematerialize=True)
        model.compile(LARS(0.1), jit_compile=True)
        before = parts(model)
        history = model.fit(
            images(1), callbacks=[TargetUpdate(constant_tau(0.5))], verbose=0, shuffle=False
        ).history
        assert np.isfinite(history["loss"]).all()
        assert max(np.abs(a - b).max() for a, b in zip(before, parts(model), strict=True)) > 1e-5


@pytest.mark.long  # test_train_step has two replicas in the fast suite
@pytest.mark.parametrize("steps", [1, 3])
def test_two_replicas_equal_one_for_any_steps_per_call(steps):
    found = []
    for count in (1, 2):
        with replicas(count).scope():
            model = tiny.model()
            model.compile(keras.optimizers.SGD(0.05), steps_per_execution=steps, jit_compile=False)
        history = tiny.fit(model, 5 if steps == 1 else 3, [TargetUpdate(cosine_tau(0.8, 5))])
        found.append((history["loss"], parts(model)))
    (one_loss, one), (two_loss, two) = found
    for a, b in zip(one, two, strict=True):
        assert np.abs(a - b).max() < 1e-5 * max(np.abs(a).max(), 0.1)
    assert two_loss == pytest.approx(one_loss, rel=1e-5)


def test_infinity_on_one_replica_skips_the_step_on_both():
    """In float16: gradients of the second replica's part of the second batch are too large for the
    loss scale."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    strategy = replicas(2)
    with strategy.scope():
        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=False)
        model.optimizer.dynamic_scale.assign(4096.0)
    first, second = tiny.views(1)
    bad = first.copy()
    bad[0, -1] *= 2000.0
    ends = []
    for views, steps, scale in (
        ((first, second), 1, 4096.0),
        ((bad, second), 1, 2048.0),
        ((first, second), 2, None),
    ):
        data = tf.data.Dataset.from_tensor_slices(views)
        update = TargetUpdate(cosine_tau(0.8, 50))
        history = model.fit(data, callbacks=[update], verbose=0, shuffle=False).history
        ends.append((history["tau"][0], []))
        learned = [*model.trainable_variables, *(target for _, target in model.target_pairs())]
        for variable in learned:
            mine, other = strategy.experimental_local_results(variable.value)
            np.testing.assert_array_equal(mine.numpy(), other.numpy())
            assert np.isfinite(mine.numpy()).all()
            ends[-1][1].append(mine.numpy())
        assert int(model.optimizer.iterations.numpy()) == steps
        assert scale in (None, float(model.optimizer.dynamic_scale.numpy()))
        assert model.skipped_steps == 0  # Keras found its scale; that is no trouble
    (tau, before), (tau_of_skipped, skipped), (_, after) = ends
    assert tau == pytest.approx(0.8, abs=0.01)
    assert tau_of_skipped == 1.0  # the target stays too
    for was, now in zip(before, skipped, strict=True):
        np.testing.assert_array_equal(was, now)
    assert any(np.abs(a - b).max() > 1e-5 for a, b in zip(skipped, after, strict=True))
