"""`fit` runs the model's own `train_step`, on any number of replicas and steps a call."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.ema import TargetUpdate, constant_tau
from tests.helpers import tiny
from tests.helpers.replicas import replicas
from tests.reference import learning as reference

LEARNING_RATE, TAU, STEPS = 0.1, 0.8, 3


class ScaledLoss(tiny.BYOL):
    """Counts its traces, logs one value more and reports a loss three times as large."""

    traces = 0

    def train_step(self, data):
        type(self).traces += 1
        logs = super().train_step(data)
        return logs | {"loss": 3.0 * logs["loss"], "first_view": tf.reduce_mean(data[0])}


class OwnStep(tiny.BYOL):
    """Learns by a loss of its own, as a `train_step` of Keras' guide does."""

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.encoder(data[0], training=True) - 1.0))
            loss /= self.distribute_strategy.num_replicas_in_sync
        variables = self.encoder.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"squares": loss}


def override(model_class: type, steps: int, strategy: tf.distribute.Strategy) -> dict:
    """What a `fit` of three batches with a subclass does."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny.model(of_class=model_class, tau=1.0)
        model.compile(keras.optimizers.SGD(0.1), steps_per_execution=steps, jit_compile=False)
    before = model.encoder.trainable_variables[0].numpy()
    model_class.traces = 0
    history = tiny.fit(model, STEPS)
    return {
        "history": {name: values[0] for name, values in history.items()},
        "traces": model_class.traces,
        "losses": model.last_call.losses.tolist(),
        "moved": float(np.abs(model.encoder.trainable_variables[0].numpy() - before).max()),
        "steps": int(model.optimizer.iterations.numpy()),
    }


def accumulated(normalization: str, micro_batches: int, strategy: tf.distribute.Strategy) -> dict:
    """Largest difference of a `fit`'s weights from those of the algorithm written out."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = tiny.normalized(normalization, gradient_accumulation_steps=micro_batches)
        model.compile(keras.optimizers.SGD(LEARNING_RATE), jit_compile=False)
    keras.utils.set_random_seed(0)
    twin = tiny.normalized(normalization)
    history = tiny.fit(model, STEPS, [TargetUpdate(constant_tau(TAU))])
    losses = [
        written_out(twin, pair, micro_batches, strategy.num_replicas_in_sync)
        for pair in zip(*tiny.views(STEPS), strict=True)
    ]
    differences = {
        name: float(np.abs(one - other).max() / max(np.abs(other).max(), 0.1))
        for name, one, other in zip(
            names(model), tiny.all_weights(model), tiny.all_weights(twin), strict=True
        )
    }
    return {
        "difference": max(differences.values()),
        "losses": [history["loss"][0], float(np.mean(losses))],
        "weights": len(differences),
    }


def names(model: tiny.BYOL) -> list[str]:
    return [f"{index} {v.path}" for index, v in enumerate(tiny.all_variables(model))]


def written_out(twin: tiny.BYOL, pair, micro_batches: int, count: int) -> float:
    """One step of algorithm 1 of the paper on the networks of a model, and its loss.

    Micro-batch j is that of all replicas together, as batch statistics are synchronised.
    """
    size = len(pair[0]) // (count * micro_batches)
    variables, total, loss_sum = twin.trainable_variables, None, 0.0
    for index in range(micro_batches):
        first, second = (
            view.reshape(count, micro_batches, size, *view.shape[1:])[:, index].reshape(
                -1, *view.shape[1:]
            )
            for view in pair
        )
        targets = [
            twin.target_projector(twin.target_encoder(view, training=True), training=True)
            for view in (first, second)
        ]
        with tf.GradientTape() as tape:
            online = [twin.encoder(view, training=True) for view in (first, second)]
            online = [twin.projector(x, training=True) for x in online]
            online = [twin.predictor(x, training=True) for x in online]
            loss = tf.reduce_mean(
                4.0
                + sum(
                    2.0 * keras.losses.cosine_similarity(t, o)
                    for t, o in ((targets[1], online[0]), (targets[0], online[1]))
                )
            )
        gradients = [g / micro_batches for g in tape.gradient(loss, variables)]
        total = (
            gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
        )
        loss_sum += float(loss) / micro_batches
    for variable, gradient in zip(variables, total, strict=True):
        variable.assign_sub(LEARNING_RATE * gradient)
    for online, target in twin.target_pairs():
        target.assign(reference.followed(target.numpy(), online.numpy(), TAU))
    return loss_sum


@pytest.fixture(scope="module")
def plain() -> dict:
    return override(tiny.BYOL, 3, replicas(1))


@pytest.mark.parametrize(
    ("steps", "count"),
    [
        (1, 1),
        pytest.param(1, 2, marks=pytest.mark.long),
        pytest.param(3, 1, marks=pytest.mark.long),
        (3, 2),
    ],
)
class TestOverride:
    def test_logs_of_an_override_reach_callbacks(self, steps, count, plain):
        results = override(ScaledLoss, steps, replicas(count))
        assert results["traces"] == count  # once for each replica
        assert results["steps"] == STEPS
        assert results["history"]["loss"] == pytest.approx(3 * plain["history"]["loss"], rel=1e-5)
        last_batch = tiny.views(STEPS)[0][-1]
        assert results["history"]["first_view"] == pytest.approx(last_batch.mean(), abs=1e-6)
        assert results["losses"] == pytest.approx(plain["losses"][-steps:], rel=1e-5)

    def test_a_step_of_its_own_learns(self, steps, count):
        results = override(OwnStep, steps, replicas(count))
        assert list(results["history"]) == ["squares"]
        assert results["moved"] > 1e-3
        assert results["steps"] == STEPS


QUICK = [("batch", 1, 1), ("batch", 2, 2), ("group", 2, 1)]
"""In the fast suite: batch normalisation on one replica and on two, and group normalisation."""


@pytest.mark.parametrize(
    ("normalization", "micro_batches", "count"),
    [
        pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.long])
        for case in itertools.product(("batch", "group", "none"), (1, 2), (1, 2))
    ],
)
def test_accumulation_equals_the_algorithm_written_out(normalization, micro_batches, count):
    results = accumulated(normalization, micro_batches, replicas(count))
    assert results["weights"] > 10
    assert results["difference"] < 2e-5
    assert results["losses"][0] == pytest.approx(results["losses"][1], rel=1e-5)
