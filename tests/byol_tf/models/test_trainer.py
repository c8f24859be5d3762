"""Several steps per call, replicas and micro-batches give the numbers of single steps."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, LARS, Objective, build_encoder, mlp_head
from byol_tf.models.ema import TargetUpdate, constant_tau, cosine_tau
from tests.helpers import tiny
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


TWO_REPLICAS = """
import json
import sys
import keras
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from byol_tf.models.ema import TargetUpdate, cosine_tau
from tests.helpers import tiny

strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])


def trained(strategy, steps):
    with strategy.scope():
        model = tiny.model()
        model.compile(keras.optimizers.SGD(0.05), steps_per_execution=steps, jit_compile=False)
    history = tiny.fit(model, 5 if steps == 1 else 3, [TargetUpdate(cosine_tau(0.8, 5))])
    return history, tiny.weights(*model.networks.values(), model.target_encoder, model.target_projector)


def errors(ones, others):
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 0.1)) for a, b in zip(ones, others, strict=True))


found = {}
for steps in (1, 3):
    one, two = trained(tf.distribute.OneDeviceStrategy("/cpu:0"), steps), trained(strategy, steps)
    found[str(steps)] = {"error": errors(one[1], two[1]), "loss": [one[0]["loss"][0], two[0]["loss"][0]], "tau": two[0]["tau"]}

# float16: gradients of the second replica's part of the second batch are too large for the loss scale
keras.mixed_precision.set_global_policy("mixed_float16")
with strategy.scope():
    model = tiny.model()
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), jit_compile=False)
    model.optimizer.dynamic_scale.assign(4096.0)
first, second = tiny.views(1)
bad = first.copy()
bad[0, -1] *= 2000.0
history, states = [], []
for views in ((first, second), (bad, second), (first, second)):
    data = tf.data.Dataset.from_tensor_slices(views)
    tau = model.fit(data, callbacks=[TargetUpdate(cosine_tau(0.8, 50))], verbose=0, shuffle=False).history["tau"][0]
    trainable = [*model.trainable_variables, *(target for _, target in model.target_pairs())]
    replicas = [[x.numpy() for x in strategy.experimental_local_results(v.value)] for v in trainable]
    states.append([parts[0] for parts in replicas])
    history.append({
        "tau": float(tau),
        "skipped": model.skipped_steps,
        "finite": all(bool(np.isfinite(x).all()) for parts in replicas for x in parts),
        "apart": max(float(np.abs(parts[0] - parts[1]).max()) for parts in replicas),
        "steps": int(model.optimizer.iterations.numpy()),
        "scale": float(model.optimizer.dynamic_scale.numpy()),
    })
found["float16"] = history
found["moved"] = [max(float(np.abs(a - b).max()) for a, b in zip(x, y)) for x, y in zip(states, states[1:])]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def two_replicas() -> dict:
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long  # test_train_step has two replicas in the fast suite
@pytest.mark.parametrize("steps", ["1", "3"])
def test_two_replicas_equal_one_for_any_steps_per_call(two_replicas, steps):
    found = two_replicas[steps]
    assert found["error"] < 1e-5
    assert found["loss"][0] == pytest.approx(found["loss"][1], rel=1e-5)


def test_infinity_on_one_replica_skips_the_step_on_both(two_replicas):
    before, skipped, after = two_replicas["float16"]
    assert all(state["finite"] for state in two_replicas["float16"])
    assert [state["apart"] for state in two_replicas["float16"]] == [0.0, 0.0, 0.0]
    assert [state["steps"] for state in (before, skipped, after)] == [1, 1, 2]
    assert [state["scale"] for state in (before, skipped)] == [4096.0, 2048.0]
    assert [state["skipped"] for state in two_replicas["float16"]] == [
        0,
        0,
        0,
    ]  # Keras found its scale; that is no trouble
    assert skipped["tau"] == 1.0  # the target stays too
    assert before["tau"] == pytest.approx(0.8, abs=0.01)
    assert two_replicas["moved"][0] == 0.0
    assert two_replicas["moved"][1] > 1e-5
