"""Weights of several shapes, and their steps by an optimizer."""

import functools

import keras
import numpy as np
import tensorflow as tf

from byol_tf.models.optimizers import (
    LARS,
    SGD,
    Adam,
    AdamW,
    Lamb,
    WarmupSchedule,
)
from tests.reference import optimizers as reference

SHAPES = {"conv": (3, 3, 2, 4), "dense": (5, 4), "bias": (4,), "gamma": (4,), "scalar": ()}
STEPS = 50


SCHEDULED = [reference.warmup_cosine(step, 0.5, STEPS, 7) for step in range(STEPS)]

MAKERS = {
    "lars": functools.partial(LARS, l2=0.5, eta=0.2),
    "adam": functools.partial(Adam, l2=0.5),
    "adamw": functools.partial(AdamW, weight_decay=0.5),
    "lamb": functools.partial(Lamb, weight_decay=0.5),
    "sgd": functools.partial(SGD, l2=0.5, momentum=0.9),
}


def start() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.normal(0.0, 1.0, shape).astype(np.float32) for shape in SHAPES.values()]


def gradients() -> list[list[np.ndarray]]:
    draw = np.random.default_rng(1)
    return [
        [draw.normal(0.1, 1.0, shape).astype(np.float32) for shape in SHAPES.values()]
        for _ in range(STEPS)
    ]


def trained(
    optimizer: keras.optimizers.Optimizer,
    steps: list[list[np.ndarray]],
    weights: list[np.ndarray],
    excluded: tuple[int, ...] = (),
    groups: dict[int, float | WarmupSchedule] | None = None,
    traced: bool = True,
) -> list[np.ndarray]:
    """The weights after these gradients; `excluded` are is_excluded decay, and those in `groups`
    have their own rate."""
    variables = [keras.Variable(weight) for weight in weights]
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if excluded:
        inner.exclude_from_weight_decay(var_list=[variables[index] for index in excluded])
    for index, rate in (groups or {}).items():
        inner.set_group_rate([variables[index]], rate)
    optimizer.build(variables)

    def step(*values):
        optimizer.apply_gradients(zip(values, variables, strict=True))

    step = tf.function(step) if traced else step
    for values in steps:
        step(*(tf.constant(value) for value in values))
    return [variable.numpy() for variable in variables]


def largest_error(received: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Largest error of any element, relative to the largest one of its weight."""
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for one, other in zip(received, expected, strict=True)
    )


def assert_equal(
    received: list[np.ndarray], expected: list[np.ndarray], of_largest: float = 1e-6
) -> None:
    for name, one, other in zip(SHAPES, received, expected, strict=False):
        np.testing.assert_allclose(
            one, other, rtol=1e-5, atol=of_largest * np.abs(other).max(), err_msg=name
        )
