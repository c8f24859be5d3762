"""Gradients of a step: averaged over micro-batches, and only where there are some."""

from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from byol_tf.models.batches import micro_batches
from byol_tf.models.measures import Measures

Gradients = list[tf.Tensor | None]
"""One for each variable; None where the loss doesn't depend on it."""


def average_over_micro_batches(
    loss_and_gradients: Callable[[Sequence[tf.Tensor]], tuple[Measures, Gradients]],
    views: Sequence[tf.Tensor],
    count: int,
    names: Iterable[str],
    variables: Sequence[keras.Variable],
) -> tuple[Measures, Gradients]:
    """Returns the mean of `loss_and_gradients` over `count` equal parts of a batch.

    Only one part's activations are in memory at a time. On one replica the parts are a
    `tf.while_loop`, whose body is traced once. On several they are unrolled: synchronised batch
    normalisation exchanges its sums by `merge_call`, which TensorFlow forbids inside a loop.

    Args:
        loss_and_gradients: gives measures and gradients from the views of a micro-batch.
        views: `[N, ...]` each.
        count: of micro-batches, a divisor of N.
        names: of the measures, in their order.
        variables: those that the gradients belong to.

    Raises:
        ValueError: if `count` doesn't divide N; see `batches.micro_batches`.
    """
    if count == 1:
        return loss_and_gradients(views)
    parts = micro_batches(views, count)
    zeros = [tf.zeros(variable.shape) for variable in variables]
    missed = set[int]()  # positions of variables without a gradient, known once traced

    def add(index: int | tf.Tensor, sums: tuple) -> tuple[int | tf.Tensor, tuple]:
        # The dependency keeps unrolled parts from being computed at the same time.
        with tf.control_dependencies(tf.nest.flatten(sums)):
            micro_batch = [tf.identity(part[index]) for part in parts]
        measures, gradients = loss_and_gradients(micro_batch)
        missed.update(i for i, gradient in enumerate(gradients) if gradient is None)
        dense = [
            zero if gradient is None else gradient
            for gradient, zero in zip(gradients, zeros, strict=True)
        ]
        sums = tf.nest.map_structure(lambda a, b: a + b / count, sums, (measures, dense))
        return index + 1, sums

    sums = ({name: tf.zeros(()) for name in names}, zeros)
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        _, sums = tf.while_loop(lambda index, _: index < count, add, (0, sums))
    else:
        for index in range(count):
            _, sums = add(index, sums)
    measures, gradients = sums
    return measures, [None if i in missed else g for i, g in enumerate(gradients)]


def drop_unreached(
    gradients: Gradients, variables: Sequence[keras.Variable], warn: Callable[[str], None]
) -> tuple[list[tf.Tensor], list[keras.Variable]]:
    """Returns gradients and variables without those variables that have no gradient.

    Args:
        gradients: one for each variable, or None.
        variables: all that are trained.
        warn: called with a sentence that names the variables without a gradient, if there are any.

    Raises:
        ValueError: if none of the variables has a gradient.
    """
    pairs = list(zip(gradients, variables, strict=True))
    found = [pair for pair in pairs if pair[0] is not None]
    if missed := [variable.path for gradient, variable in pairs if gradient is None]:
        if not found:
            raise ValueError("no trainable weight has a gradient: the loss depends on none")
        warn(
            f"no gradient reaches {len(missed)} trainable weights, which stay as they are: "
            f"{', '.join(missed)}"
        )
    return [gradient for gradient, _ in found], [variable for _, variable in found]
