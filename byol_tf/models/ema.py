"""The target network's moving average: schedules of tau, and the callback that applies them."""

import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from byol_tf import compat

TauSchedule = Callable[[tf.Tensor], tf.Tensor]
"""Optimizer step k (float32 scalar, 0 for the first) -> tau (float32 scalar in [0, 1])."""


def constant_tau(base: float) -> TauSchedule:
    """Tau stays at `base` (STL-10 paper, section 3.4: 0.999)."""
    return lambda step: tf.constant(base, tf.float32)


def cosine_tau(base: float, total_steps: int, end: float = 1.0) -> TauSchedule:
    """Tau goes from `base` at step 0 to `end` at `total_steps` by a half cosine.

    tau = end - (end - base) (cos(pi k / K) + 1) / 2 at step k of K (BYOL paper, section 3.3). With
    `end` below `base` it is the STL-10 paper's inverse cosine (table 8: 0.999 down to 0.5).
    """

    def schedule(step: tf.Tensor) -> tf.Tensor:
        progress = tf.minimum(step / max(total_steps, 1), 1.0)
        return end - (end - base) * (tf.cos(math.pi * progress) + 1.0) / 2.0

    return schedule


def dropped_tau(base: float, total_steps: int, drop_at: float = 0.25) -> TauSchedule:
    """Tau is `base`, and 0 from step `drop_at` x `total_steps` on (STL-10 paper, table 7).

    At 0 the target is the online network.
    """
    return lambda step: tf.where(step < drop_at * total_steps, tf.constant(base, tf.float32), 0.0)


def tau_schedule(
    name: str, total_steps: int, base: float, end: float | None, drop_at: float
) -> TauSchedule:
    """Returns the schedule of a name in configs.

    Args:
        name: `constant`, `cosine`, `inverse_cosine` or `drop`.
        total_steps: optimizer steps of the run.
        base: tau of the first step.
        end: tau of the last step; for the cosines, which need it.
        drop_at: part of the steps after which tau is 0; for `drop` only.

    Raises:
        ValueError: for another name.
    """
    if name == "constant":
        return constant_tau(base)
    if name in ("cosine", "inverse_cosine") and end is not None:
        return cosine_tau(base, total_steps, end)
    if name == "drop":
        return dropped_tau(base, total_steps, drop_at)
    raise ValueError(
        'tau schedule: expected "constant", "cosine", "inverse_cosine" or "drop"; received '
        f"{name!r}"
    )


class TargetUpdate(keras.callbacks.Callback):
    """Moves the target network after each optimizer step: target += (1 - tau) (online - target).

    Only trainable parameters are averaged, in float32, from the online network as the optimizer has
    just left it; the target's batch statistics are its own (deepmind-research
    `byol/byol_experiment.py`).

    Example:
        `model.fit(pairs_of_views, callbacks=[TargetUpdate(cosine_tau(0.996, total_steps))])`

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

    def set_model(self, model: keras.Model) -> None:
        """Attaches the update to the model, whose compiled step is rebuilt to contain it."""
        super().set_model(model)
        if not hasattr(model, "target_pairs"):
            raise TypeError(
                "TargetUpdate needs a byol_tf.BYOL model, with an online and a target network; "
                f"received {type(model).__name__}"
            )
        model.target_update = self if self.placement == "step" else None
        model.train_function = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Notes how many optimizer steps the target has followed."""
        self._steps_followed = int(tf.convert_to_tensor(self.model.optimizer.iterations))
        self._last_tau = 1.0

    def on_train_end(self, logs: dict | None = None) -> None:
        """Detaches the update: a later `fit` without this callback leaves the target as it is."""
        self.model.target_update = None
        self.model.train_function = None

    def tau(self, step: float | tf.Tensor) -> tf.Tensor:
        """Returns tau of an optimizer step (0 is the first), a float32 scalar."""
        return tf.cast(self.schedule(tf.cast(step, tf.float32)), tf.float32)

    def apply(
        self,
        pairs: Sequence[tuple[keras.Variable, keras.Variable]],
        step: int | tf.Tensor,
        updated: bool | tf.Tensor = True,
    ) -> tf.Tensor:
        """Updates the target variables; may be traced, in replica context too.

        Args:
            pairs: (online, target).
            step: number of the optimizer step, 0 for the first.
            updated: whether the optimizer updated the online network, instead of skipping the step.

        Returns:
            tau, a float32 scalar: 1, so that the target stays, where the step was skipped.
        """
        tau = tf.where(updated, self.tau(step), 1.0)

        def follow(target: tf.Variable, online: tf.Tensor) -> None:
            target.assign_add((1.0 - tau) * (online - target))

        def update_all(strategy: tf.distribute.Strategy, pairs: Sequence) -> None:
            for online, target in pairs:
                strategy.extended.update(target.value, follow, args=(online.value,), group=False)

        compat.merge_or_call(update_all, pairs)
        return tau

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Updates the target after a batch, if that is its placement."""
        if self.placement == "batch_end":
            iterations = int(tf.convert_to_tensor(self.model.optimizer.iterations))
            self._last_tau = self.apply(
                self.model.target_pairs(), iterations - 1, iterations > self._steps_followed
            )
            self._steps_followed = iterations

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs tau, since Keras drops what is added to a batch's logs."""
        if self.placement == "batch_end" and logs is not None:
            logs["tau"] = float(self._last_tau)
