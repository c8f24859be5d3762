"""Forward passes of several views through one network."""

from collections.abc import Callable

import keras
import tensorflow as tf

from byol_tf import compat
from byol_tf.models.networks import batch_independent


def forward(
    network: keras.Model,
    inputs: dict[int, tf.Tensor],
    losses: list[tf.Tensor],
    training: bool,
    rematerialized: Callable[[tf.Tensor], tf.Tensor] | None = None,
    joint: bool = False,
) -> dict[int, tf.Tensor]:
    """Returns view -> the network's output.

    Batch statistics are per view, so each view is a forward pass of its own. Without any, or with
    joint ones, one pass serves all views of one size, and kernels are standardised once a step.

    Args:
        network: built.
        inputs: view -> `[N, ...]`.
        losses: those that layers add in the passes are appended.
        training: whether the network uses batch statistics.
        rematerialized: another way to compute the network's output in training.
        joint: whether batch statistics are those of all views together.

    Raises:
        ValueError: if layers of a rematerialised network add losses.
    """

    def run(x: tf.Tensor) -> tf.Tensor:
        recompute = rematerialized if training else None
        outputs = network(x, training=training) if recompute is None else recompute(x)
        added = compat.call_losses(network)
        if added and recompute is not None:
            raise ValueError(
                "rematerialize: expected an encoder whose layers add no losses (add_loss, "
                f'activity_regularizer); "{network.name}" has {len(added)}'
            )
        losses.extend(added)
        return outputs

    sizes = {tuple(value.shape[1:]) for value in inputs.values()}
    if len(inputs) == 1 or len(sizes) > 1 or not (joint or batch_independent(network)):
        return {view: run(value) for view, value in inputs.items()}
    outputs = run(tf.concat(list(inputs.values()), axis=0))
    return dict(zip(inputs, tf.split(outputs, len(inputs)), strict=True))
