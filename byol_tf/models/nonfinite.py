"""A training step whose numbers aren't finite changes nothing: what is looked at, and how such a
step is left out."""

from collections.abc import Callable, Iterable

import keras
import tensorflow as tf

BEFORE = ("views", "loss", "gradient", "batch statistics", "loss scale")
"""What is looked at before the optimizer moves anything. Trouble here leaves the step out."""
AFTER = ("weight", "target network")
"""What is looked at after it. Trouble here can't be left out: it is in what the next step would
begin with."""
LASTING = ("loss scale", *AFTER)
"""What each step after it would meet too, and each run that goes on from a checkpoint after it:
that always ends the run."""
TROUBLES = BEFORE + AFTER
"""What may be not finite, in the order of a step's flags."""

LEAST_SCALE = 2.0**-14
"""The smallest loss scale that float16's gradients may ask for: its smallest normal number. Below 1
it is unusual, but right where a batch normalisation divides by a variance next to 0."""


def total(values: Iterable) -> tf.Tensor:
    """The sum of all elements of tensors or variables, a float32 scalar, which isn't finite if one
    of them isn't.

    One pass over each, without a tensor of booleans as `is_finite` makes: on two CPU cores a sum
    takes less than half as long. Finite values whose sum isn't, beyond 3e38, count as not finite.
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
    """As `total`, of half the squares: those of gradients beyond 1e19 would be infinite in an
    optimizer's second moment for ever."""
    return _sum([tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors])


def _sum(scalars: list[tf.Tensor]) -> tf.Tensor:
    return tf.add_n(scalars) if scalars else tf.zeros(())


def flags(*totals: tf.Tensor) -> tf.Tensor:
    """float32 `[number of totals]`: 1 where one isn't finite, else 0."""
    return tf.cast(~tf.math.is_finite(tf.stack(totals)), tf.float32)


def of_all_replicas(found: tf.Tensor) -> tf.Tensor:
    """Flags that are 1 where those of any replica are: all of them leave a step out, or none."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return found
    return tf.minimum(context.all_reduce(tf.distribute.ReduceOp.SUM, found), 1.0)


def flags_before(
    optimizer: keras.optimizers.Optimizer,
    views: Iterable,
    loss: tf.Tensor,
    gradients: Iterable[tf.Tensor],
    statistics: Iterable,
) -> tf.Tensor:
    """Flags of `BEFORE`, agreed on by all replicas; `optimizer` is built.

    With float16 a gradient that isn't finite is how `LossScaleOptimizer` finds its scale: it skips
    the step and halves the scale by itself, and that is no trouble until the scale is down to
    `LEAST_SCALE`.
    """
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    scale = (
        optimizer.dynamic_scale.value if scaled else tf.constant(LEAST_SCALE)
    )  # without one there is none to be found
    usable = tf.where(scale > 0.0, scale, float("nan"))
    found = of_all_replicas(
        flags(total(views), loss, total_of_squares(gradients), total(statistics), usable)
    )
    searching = (
        (scale > LEAST_SCALE)
        & (found[BEFORE.index("loss")] == 0.0)
        & (found[BEFORE.index("views")] == 0.0)
    )
    return found * tf.where(
        searching, tf.constant([float(name != "gradient") for name in BEFORE]), 1.0
    )


Branch = tuple[Callable[[list[tf.Tensor]], object], list[tf.Tensor]]
"""A function, and what a replica calls it with."""


def either(sound: tf.Tensor, step: Branch, undo: Branch) -> None:
    """Runs `step` if `sound` (a boolean scalar, the same on all replicas), else `undo`. In replica
    context; may be traced.

    Several replicas branch together and not each for itself, since what an optimizer does in a step
    is a matter of all of them (Keras' `LossScaleOptimizer` does the same).
    """
    if tf.__internal__.distribute.strategy_supports_no_merge_call():
        tf.cond(sound, lambda: _nothing(step[0](step[1])), lambda: _nothing(undo[0](undo[1])))
        return

    def across(strategy, sound, step_values, undo_values):
        one = strategy.experimental_local_results(sound)[0]

        def on_each(run, values):
            strategy.extended.call_for_each_replica(
                lambda values: _nothing(run(values)), args=(values,)
            )

        tf.cond(one, lambda: on_each(step[0], step_values), lambda: on_each(undo[0], undo_values))

    tf.distribute.get_replica_context().merge_call(across, args=(sound, step[1], undo[1]))


def _nothing(_: object) -> None:
    """Both branches of a `tf.cond` must return the same."""
