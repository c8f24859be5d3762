"""Skips optimizer steps whose numbers aren't finite, as `optax.apply_if_finite` does."""

from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from byol_tf import compat

PRE_UPDATE = ("views", "loss", "gradient", "batch statistics", "loss scale")
"""Checks before the optimizer's update; a failure skips the step."""
POST_UPDATE = ("weight", "target network")
"""Checks after it. A failure can't be skipped: the next step would start from it."""
FATAL = ("loss scale", *POST_UPDATE)
"""Failures that persist in a checkpoint's state and therefore always end the run."""
CHECKS = PRE_UPDATE + POST_UPDATE

MIN_LOSS_SCALE = 2.0**-14
"""The smallest loss scale that float16 gradients may need: float16's smallest normal number.

Below 1 a scale is unusual, but right where a batch normalisation divides by a variance near 0.
"""


class SkipNonFinite:
    """Wraps an optimizer: a step that isn't finite changes nothing.

    To `keras.optimizers.Optimizer.apply_gradients` it is what `optax.apply_if_finite` is to an
    optax update, and like Keras' `LossScaleOptimizer` it has all replicas skip together. It holds
    no state: skipped steps are counted from the flags that it returns.

    Args:
        optimizer: may be a `LossScaleOptimizer`, which skips steps to find its scale. That is no
            failure until the scale is down to `MIN_LOSS_SCALE`.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer):
        self.optimizer = optimizer

    def apply_gradients(
        self,
        gradients: Sequence[tf.Tensor],
        variables: Sequence[keras.Variable],
        *,
        views: Iterable[tf.Tensor],
        loss: tf.Tensor,
        state: Sequence[tuple[keras.Variable, tf.Tensor]],
    ) -> tf.Tensor:
        """Applies the gradients if all that the step computed is finite, else restores the state.

        To be called in replica context; may be traced.

        Args:
            gradients: this replica's, one for each variable.
            variables: all that the optimizer trains; it is built with them if it isn't yet.
            views: what the networks were given; checked.
            loss: float32 scalar, equal on all replicas; checked.
            state: (variable, its value before the step) of what the forward pass changed, such as
                batch statistics; checked, and restored if the step is skipped.

        Returns:
            float32 `[len(PRE_UPDATE)]`, equal on all replicas: 1 for each of `PRE_UPDATE` that
            isn't finite on some replica, else 0.
        """
        if not self.optimizer.built:
            self.optimizer.build(variables)
        failures = self._check(views, loss, gradients, [variable for variable, _ in state])

        def update(gradients: list[tf.Tensor]) -> None:
            self.optimizer.apply_gradients(zip(gradients, variables, strict=True))

        def restore(values: list[tf.Tensor]) -> None:
            for (variable, _), value in zip(state, values, strict=True):
                variable.assign(value)

        apply_or_rollback(
            tf.reduce_all(failures == 0.0),
            (update, self._agreed(gradients)),
            (restore, [value for _, value in state]),
        )
        return failures

    def _check(
        self,
        views: Iterable[tf.Tensor],
        loss: tf.Tensor,
        gradients: Iterable[tf.Tensor],
        statistics: Iterable[keras.Variable],
    ) -> tf.Tensor:
        """Returns the flags of `PRE_UPDATE` after an exchange between replicas."""
        scale = tf.constant(MIN_LOSS_SCALE)  # without a loss scale none is being searched for
        if self._scales_loss:
            scale = self.optimizer.dynamic_scale.value
        valid_scale = tf.where(scale > 0.0, scale, float("nan"))
        failures = _any_replica(
            flags(total(views), loss, total_of_squares(gradients), total(statistics), valid_scale)
        )
        searching = (
            (scale > MIN_LOSS_SCALE)
            & (failures[PRE_UPDATE.index("loss")] == 0.0)
            & (failures[PRE_UPDATE.index("views")] == 0.0)
        )
        without_gradient = tf.constant([float(name != "gradient") for name in PRE_UPDATE])
        return failures * tf.where(searching, without_gradient, 1.0)

    def _agreed(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the gradients, made infinite if those of any replica aren't finite.

        Keras' `LossScaleOptimizer` looks at one replica's gradients to decide whether all skip the
        step, so an infinity on another would reach the weights.
        """
        if not self._scales_loss or _replicas() == 1:
            return list(gradients)
        finite = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients]
        )
        failed = _any_replica(tf.cast(~finite, tf.float32)) > 0.0
        return [
            tf.where(failed, tf.cast(float("inf"), gradient.dtype), gradient)
            for gradient in gradients
        ]

    @property
    def _scales_loss(self) -> bool:
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)


def total(values: Iterable) -> tf.Tensor:
    """Returns the sum of all elements, which isn't finite if one of them isn't.

    One pass over each tensor, without a tensor of booleans as `is_finite` makes: on two CPU cores a
    sum takes less than half as long. Finite values whose sum is beyond 3e38 count as not finite.

    Args:
        values: tensors or variables; those of integers are ignored.

    Returns:
        float32 scalar.
    """
    tensors = [tf.convert_to_tensor(value) for value in values]
    return _sum(
        [
            tf.reduce_sum(tf.cast(tensor, tf.float32))
            for tensor in tensors
            if tensor.dtype.is_floating
        ]
    )


def total_of_squares(tensors: Iterable[tf.Tensor]) -> tf.Tensor:
    """Returns half the sum of squares, a float32 scalar, which isn't finite if an element isn't.

    Gradients beyond 1e19 count too: their squares would stay infinite in an optimizer's second
    moment.
    """
    return _sum([tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors])


def _sum(scalars: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(scalars) if scalars else tf.zeros(())


def flags(*totals: tf.Tensor) -> tf.Tensor:
    """Returns float32 `[number of totals]`: 1 where one isn't finite, else 0."""
    return tf.cast(~tf.math.is_finite(tf.stack(totals)), tf.float32)


def _any_replica(failures: tf.Tensor) -> tf.Tensor:
    """Returns flags that are 1 where those of any replica are."""
    if _replicas() == 1:
        return failures
    context = tf.distribute.get_replica_context()
    return tf.minimum(context.all_reduce(tf.distribute.ReduceOp.SUM, failures), 1.0)


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


Branch = tuple[Callable[[list[tf.Tensor]], None], list[tf.Tensor]]
"""A function, and the tensors that each replica calls it with."""


def apply_or_rollback(finite: tf.Tensor, apply: Branch, rollback: Branch) -> None:
    """Runs `apply` if `finite` (a boolean scalar, equal on all replicas), else `rollback`.

    Replicas branch together in one `tf.cond`, since the optimizer's update in a branch merges them
    (Keras' `LossScaleOptimizer` does the same).
    """
    if not compat.branches_must_merge():
        tf.cond(finite, lambda: apply[0](apply[1]), lambda: rollback[0](rollback[1]))
        return

    def branch(
        strategy: tf.distribute.Strategy,
        finite: tf.Tensor,
        apply_values: list[tf.Tensor],
        rollback_values: list[tf.Tensor],
    ) -> None:
        tf.cond(
            strategy.experimental_local_results(finite)[0],
            lambda: compat.call_on_each_replica(strategy, apply[0], [apply_values]),
            lambda: compat.call_on_each_replica(strategy, rollback[0], [rollback_values]),
        )

    context = tf.distribute.get_replica_context()
    context.merge_call(branch, args=(finite, apply[1], rollback[1]))
