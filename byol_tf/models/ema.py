"""The target network's average of the online one: tau schedules and the callback that applies
them."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from byol_tf import compat

TauSchedule = Callable[[tf.Tensor], tf.Tensor]
"""Optimizer step k (float32 scalar, 0 for the first) -> tau (float32 scalar in [0, 1])."""


def constant_tau(base: float) -> TauSchedule:
    """Tau stays at `base` (STL-10 paper, section 3.4: 0.999)."""
    return lambda step: tf.constant(base, tf.float32)


def cosine_tau(base: float, total_steps: int, end: float = 1.0) -> TauSchedule:
    """From `base` at step 0 to `end` at `total_steps`: end - (end - base) (cos(pi k / K) + 1) / 2
    (BYOL paper, section 3.3).

    With `end` below `base` it is the STL-10 paper's inverse cosine (table 8: 0.999 down to 0.5).
    """

    def schedule(step):
        progress = tf.minimum(step / max(total_steps, 1), 1.0)
        return end - (end - base) * (tf.cos(math.pi * progress) + 1.0) / 2.0

    return schedule


def dropped_tau(base: float, total_steps: int, drop_at: float = 0.25) -> TauSchedule:
    """`base`, and 0 from step `drop_at` x `total_steps` on: the target is the online network from
    then (STL-10 paper, table 7)."""
    return lambda step: tf.where(step < drop_at * total_steps, tf.constant(base, tf.float32), 0.0)


def tau_schedule(
    kind: str, total_steps: int, base: float, end: float | None, drop_at: float
) -> TauSchedule:
    """The schedule that a config names: `constant`, `cosine`, `inverse_cosine` or `drop`. Raises
    `ValueError` for another kind."""
    if kind == "constant":
        return constant_tau(base)
    if kind in ("cosine", "inverse_cosine"):
        return cosine_tau(base, total_steps, end)
    if kind == "drop":
        return dropped_tau(base, total_steps, drop_at)
    raise ValueError(
        'tau schedule: expected "constant", "cosine", "inverse_cosine" or "drop"; received '
        f"{kind!r}"
    )


class TargetUpdate(keras.callbacks.Callback):
    """Moves the target network after each optimizer step: target += (1 - tau) (online - target).

    Only trainable parameters are averaged, in float32, from the online network as the optimizer has
    just left it; the target's batch statistics are its own (deepmind-research
    `byol/byol_experiment.py`).

    Args:
        schedule: tau for optimizer step k, the first being 0.
        placement: `step` (default) makes the update the end of the model's compiled step, which is
            right on any number of replicas and for any number of steps per execution. `batch_end`
            runs it as a plain callback after each batch: the same weights to the last bit at one
            step per execution.

    Raises:
        ValueError: for another placement.
        TypeError: when used with a model that has no `target_pairs()`.
    """

    def __init__(self, schedule: TauSchedule, placement: str = "step"):
        super().__init__()
        if placement not in ("step", "batch_end"):
            raise ValueError(f'placement: expected "step" or "batch_end"; received {placement!r}')
        self.schedule = schedule
        self.placement = placement

    def set_model(self, model):
        """Attaches the update to the model, and has the compiled step built anew to hold it."""
        super().set_model(model)
        if not hasattr(model, "target_pairs"):
            raise TypeError(
                "TargetUpdate needs a byol_tf.BYOL model, with an online and a target network; "
                f"received {type(model).__name__}"
            )
        model.target_update = self if self.placement == "step" else None
        model.train_function = None

    def on_train_begin(self, logs=None):
        self._followed, self._last_tau = (
            int(tf.convert_to_tensor(self.model.optimizer.iterations)),
            1.0,
        )

    def on_train_end(self, logs=None):
        """Detaches the update: a later `fit` without this callback leaves the target as it is."""
        self.model.target_update = None
        self.model.train_function = None

    def tau(self, step) -> tf.Tensor:
        """Tau of optimizer step `step` (any number; 0 is the first), as a float32 scalar."""
        return tf.cast(self.schedule(tf.cast(step, tf.float32)), tf.float32)

    def apply(self, pairs, step, moved=True) -> tf.Tensor:
        """Updates each (online, target) pair of `keras.Variable`s for optimizer step `step`;
        returns tau. May be traced, in replica context too. If the online network has not `moved`,
        since its step was skipped, neither does the target, and tau is 1.
        """
        tau = tf.where(moved, self.tau(step), 1.0)

        def follow(target, online):
            target.assign_add((1.0 - tau) * (online - target))

        def update_all(strategy, pairs):
            for online, target in pairs:
                strategy.extended.update(target.value, follow, args=(online.value,), group=False)

        compat.merge_or_call(update_all, pairs)
        return tau

    def on_train_batch_end(self, batch, logs=None):
        if self.placement == "batch_end":
            iterations = int(tf.convert_to_tensor(self.model.optimizer.iterations))
            self._last_tau = self.apply(
                self.model.target_pairs(), iterations - 1, iterations > self._followed
            )
            self._followed = iterations

    def on_epoch_end(self, epoch, logs=None):
        if (
            self.placement == "batch_end" and logs is not None
        ):  # Keras drops what is put into a batch's logs
            logs["tau"] = float(self._last_tau)
