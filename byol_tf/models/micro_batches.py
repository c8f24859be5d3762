"""Gradient accumulation: a batch is computed in micro-batches, one after the other."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import tensorflow as tf

from byol_tf.models.batches import micro_batches

Results = TypeVar("Results")


def average_over_micro_batches(
    compute: Callable[[list[tf.Tensor]], Results],
    views: Sequence[tf.Tensor],
    count: int,
    zeros: Results,
) -> Results:
    """Returns the mean of `compute` over `count` equal parts of a batch.

    Only one part's activations are in memory at a time. On one replica the parts are a
    `tf.while_loop`, whose body is traced once. On several they are unrolled: synchronised batch
    normalisation exchanges its sums by `merge_call`, which TensorFlow forbids inside a loop.

    Args:
        compute: gives a structure of float32 tensors from the views of a micro-batch.
        views: `[N, ...]` each.
        count: of micro-batches, a divisor of N.
        zeros: tensors of 0 in the structure that `compute` returns.

    Raises:
        ValueError: if `count` doesn't divide N; see `batches.micro_batches`.
    """
    parts = micro_batches(views, count)

    def add(index: int | tf.Tensor, sums: Results) -> tuple[int | tf.Tensor, Results]:
        # The dependency keeps unrolled parts from being computed at the same time.
        with tf.control_dependencies(tf.nest.flatten(sums)):
            micro_batch = [tf.identity(part[index]) for part in parts]
        results = compute(micro_batch)
        return index + 1, tf.nest.map_structure(lambda a, b: a + b / count, sums, results)

    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tf.while_loop(lambda index, _: index < count, add, (0, zeros))[1]
    sums = zeros
    for index in range(count):
        _, sums = add(index, sums)
    return sums
