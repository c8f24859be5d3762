"""`python -m tests.reference`: every formula of the library in float32 against its NumPy version in
float64, as a table.

The error is the largest difference over the largest value. Exit code 1 if one reaches 1e-5.
"""

import itertools
import sys

import keras
import numpy as np
import tensorflow as tf

from byol_tf import LARS, TargetUpdate, constant_tau, cosine_tau, dropped_tau
from byol_tf.models.losses import Objective
from byol_tf.models.networks import (
    BatchNorm,
    DataInit,
    GroupNorm,
    WSConv2D,
    WSDense,
    initialize_from_data,
)
from byol_tf.models.optimizers import WarmupSchedule
from tests.helpers.replicas import replicas
from tests.reference import learning, networks, optimizers

LIMIT = 1e-5
_WITHOUT_STATISTICS = "paper without batch statistics"


def error(received, expected) -> float:
    """Largest difference over the largest expected value, of arrays or lists of arrays."""
    received, expected = (
        list(x) if isinstance(x, list | tuple) else [x] for x in (received, expected)
    )
    pairs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for a, b in zip(received, expected, strict=True)
    ]
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def _draw(*shape, seed: int = 0, offset: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).normal(offset, 1.0, shape).astype(np.float32)


def _losses():
    each = {"cosine": learning.regression_loss, "cross_entropy": learning.cross_entropy}
    names = {
        "symmetric": "symmetrised",
        "asymmetric": "one-sided",
        "asymmetric_2x": "one-sided, two draws",
    }
    p, z = ({view: _draw(64, 32, seed=start + view) for view in range(4)} for start in (0, 10))
    for (similarity, loss), (directions, name) in itertools.product(each.items(), names.items()):
        objective = Objective(similarity, directions)
        expected = sum(loss(p[a], z[b]).mean() for a, b in objective.predicts)
        yield (
            f"loss: {similarity.replace('_', '-')}, {name}",
            "BYOL eq. 2; SimSiam IV.E, IV.F",
            error(objective(p, z), expected),
        )

    def info_nce(alpha, beta):
        return 4.0 - sum(
            learning.info_nce((p[a], p[b]), (z[a], z[b]), alpha, beta) for a, b in ((0, 1), (1, 0))
        )

    for alpha, beta in ((0.1, 1.0), (0.3, 0.5)):
        received = Objective(negatives=beta, temperature=alpha)(p, z)
        yield (
            f"loss: InfoNCE, alpha {alpha}, beta {beta}",
            "BYOL eq. 8",
            error(received, info_nce(alpha, beta)),
        )

    alpha = 0.1
    objective = Objective(negatives=1.0, temperature=alpha, weight=1.0 / (2.0 * alpha))
    expected = learning.simclr_code_loss(z[0], z[1], alpha)
    received = objective(z, z) - 2.0 / alpha
    yield "loss: SimCLR's code, alpha 0.1", "google-research/simclr", error(received, expected)

    strategy = replicas(2)

    def shared(x):
        def of_replica(context):
            return tf.constant(x[32 * context.replica_id_in_sync_group :][:32])

        return strategy.experimental_distribute_values_from_function(of_replica)

    arguments = [{view: shared(x[view]) for view in (0, 1)} for x in (p, z)]
    parts = strategy.run(tf.function(Objective(negatives=1.0, temperature=0.3)), args=arguments)
    received = np.mean(strategy.experimental_local_results(parts))
    yield "loss: InfoNCE over 2 replicas", "BYOL eq. 8", error(received, info_nce(0.3, 1.0))


def _target():
    steps = np.arange(0, 1001, 25)
    schedules = {
        "constant": (constant_tau(0.999), [0.999] * len(steps)),
        "cosine": (
            cosine_tau(0.996, 1000),
            [learning.cosine_tau(step, 1000, 0.996) for step in steps],
        ),
        "inverse cosine": (
            cosine_tau(0.999, 1000, 0.5),
            [learning.cosine_tau(step, 1000, 0.999, 0.5) for step in steps],
        ),
        "drop": (dropped_tau(0.999, 1000), [0.999 if step < 250 else 0.0 for step in steps]),
    }
    for name, (schedule, expected) in schedules.items():
        received = [float(schedule(tf.constant(step, tf.float32))) for step in steps]
        yield f"tau: {name}", "BYOL 3.3; STL-10 tables 6 to 8", error([received], [expected])
    update, target, expected = (
        TargetUpdate(cosine_tau(0.9, 50)),
        keras.Variable(_draw(20, 30)),
        _draw(20, 30).astype(np.float64),
    )
    for step in range(50):
        online = _draw(20, 30, seed=step + 1)
        update.apply([(keras.Variable(online), target)], step)
        expected = learning.followed(expected, online, learning.cosine_tau(step, 50, 0.9))
    yield "the target's average over 50 steps", "BYOL 3.1", error(target.numpy(), expected)


def _optimizers():
    weights = [_draw(7, 5, seed=1), _draw(5, seed=2), _draw(3, 3, 4, 6, seed=3)]
    gradients = [
        [_draw(*w.shape, seed=10 * step + i) for i, w in enumerate(weights)] for step in range(50)
    ]
    schedule = WarmupSchedule(0.5, 50, 10)
    rates = [float(schedule(step)) for step in range(50)]
    expected = [
        0.5 * k / 10 if k < 10 else 0.25 * (1.0 + np.cos(np.pi * (k - 10) / 40)) for k in range(50)
    ]
    yield "learning rate: warm-up, then cosine", "BYOL 3.3", error([rates], [expected])
    for name, is_excluded in (("biases is_excluded", ()), ("a kernel is_excluded too", (2,))):
        variables = [keras.Variable(w) for w in weights]
        optimizer = LARS(schedule, l2=1e-2)
        optimizer.exclude_from_weight_decay(var_list=[variables[index] for index in is_excluded])
        for step in gradients:
            optimizer.apply([tf.constant(g) for g in step], variables)
        expected = optimizers.lars(weights, gradients, rates, l2=1e-2, is_excluded=is_excluded)
        yield (
            f"LARS, 50 steps, {name}",
            "deepmind-research optimizers.py",
            error([v.numpy() for v in variables], expected),
        )


def _networks():
    images = _draw(8, 6, 6, 32, offset=2.0)
    gamma, beta = _draw(32, seed=1, offset=1.0), _draw(32, seed=2)

    def with_parameters(layer):
        layer.build(images.shape)
        layer.gamma.assign(gamma)
        layer.beta.assign(beta)
        return layer

    received = with_parameters(BatchNorm())(images, training=True)
    yield (
        "batch normalisation",
        "BYOL 3.3",
        error(received, networks.batch_norm(images, gamma, beta, 1e-5)[0]),
    )
    for groups, name in ((16, "group"), (1, "layer")):
        expected = networks.group_norm(images, gamma, beta, groups, 1e-5)
        yield (
            f"{name} normalisation",
            f"{_WITHOUT_STATISTICS}, 2",
            error(with_parameters(GroupNorm(groups))(images), expected),
        )
    conv, dense = WSConv2D(5, 3, padding="same", use_bias=False), WSDense(5, use_bias=False)
    received = conv(images)
    expected = networks.conv2d(images, networks.standardized(conv.kernel.numpy(), 1e-4))
    yield (
        "weight standardisation: convolution",
        f"{_WITHOUT_STATISTICS}, 2",
        error(received, expected),
    )
    received = dense(images[:, 0, 0])
    expected = images[:, 0, 0].astype(np.float64) @ networks.standardized(
        dense.kernel.numpy(), 1e-4
    )
    yield "weight standardisation: dense", f"{_WITHOUT_STATISTICS}, 2", error(received, expected)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 32)),
            keras.layers.Conv2D(4, 3, padding="same", use_bias=False),
            DataInit(),
        ]
    )
    initialize_from_data([model], images)
    expected = networks.batch_norm(
        networks.conv2d(images, model.layers[0].kernel.numpy()), 1.0, 0.0, 1e-5
    )[0]
    yield (
        "data_init: the outputs of its batch",
        f"{_WITHOUT_STATISTICS}, 3.2",
        error(model(images), expected),
    )


def main() -> int:
    """Prints the table; returns the exit code. Needs two logical CPUs."""
    keras.utils.set_random_seed(0)
    print("| formula | source | largest relative error |\n|---|---|---|")
    largest = 0.0
    for formula, source, found in itertools.chain(_losses(), _target(), _optimizers(), _networks()):
        print(f"| {formula} | {source} | {found:.1e} |", flush=True)
        largest = max(largest, found)
    return int(largest >= LIMIT)


if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    sys.exit(main())
