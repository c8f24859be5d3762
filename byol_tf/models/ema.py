"""The target network's moving average: schedules of tau, and the callback that applies them.

Grill et al., "Bootstrap your own latent", 2020, https://arxiv.org/abs/2006.07733, equation 1.
"""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf

from byol_tf import compat
from byol_tf.errors import check_choice
from byol_tf.models.batches import only_if

TauSchedule = Callable[[tf.Tensor], tf.Tensor]
"""Optimizer step k (float32 scalar, 0 for the first) -> tau (float32 scalar in [0, 1])."""


@keras.saving.register_keras_serializable(package="byol_tf")
@dataclass(frozen=True)
class ScheduledTau:
    """Schedule of tau by name; `constant_tau`, `cosine_tau` and `dropped_tau` build one.

    Schedules with the same arguments are equal, so that a `fit` with a new but equal schedule
    reuses the traced step.

    Attributes:
        name: `constant`, `cosine` or `drop`.
        base: tau of the first step, from 0 to 1.
        total_steps: optimizer steps of the run, at least 1; a number, or a scalar such as
            `tf.data.Dataset.cardinality` returns.
        end: tau of the last step, from 0 to 1; for `cosine`.
        drop_at: part of the steps after which tau is 0, from 0 to 1; for `drop`.

    Raises:
        ValueError: for an argument outside its range.
    """

    name: str
    base: float
    total_steps: int = 1
    end: float = 1.0
    drop_at: float = 0.25

    def __post_init__(self) -> None:
        check_choice("tau schedule", self.name, ("constant", "cosine", "drop"))
        for name in ("base", "end", "drop_at"):
            _check_fraction(name, getattr(self, name))
        if not isinstance(self.total_steps, numbers.Real):
            object.__setattr__(self, "total_steps", int(self.total_steps))
        if self.total_steps < 1:
            raise ValueError(
                f"tau: expected total_steps of 1 or more; received {self.total_steps!r}"
            )

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Returns tau of a step (float32 scalar, 0 for the first), a float32 scalar."""
        if self.name == "cosine":
            progress = tf.minimum(step / self.total_steps, 1.0)
            return self.end - (self.end - self.base) * (tf.cos(math.pi * progress) + 1.0) / 2.0
        base = tf.constant(self.base, tf.float32)
        if self.name == "drop":
            return tf.where(step < self.drop_at * self.total_steps, base, 0.0)
        return base

    def get_config(self) -> dict:
        """Returns the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "ScheduledTau":
        """Returns the schedule with these arguments."""
        return cls(**config)


def _check_fraction(name: str, value: float) -> None:
    if not isinstance(value, numbers.Real) or not 0.0 <= value <= 1.0:
        raise ValueError(f"tau: expected {name} from 0 to 1; received {value!r}")


def constant_tau(base: float) -> ScheduledTau:
    """Tau stays at `base` (STL-10 paper, section 3.4: 0.999)."""
    return ScheduledTau("constant", base)


def cosine_tau(base: float, total_steps: int, end: float = 1.0) -> ScheduledTau:
    """Tau goes from `base` at step 0 to `end` at `total_steps` by a half cosine.

    tau = end - (end - base) (cos(pi k / K) + 1) / 2 at step k of K (BYOL paper, section 3.3). With
    `end` below `base` it is the STL-10 paper's inverse cosine (table 8: 0.999 down to 0.5).
    """
    return ScheduledTau("cosine", base, total_steps, end)


def dropped_tau(base: float, total_steps: int, drop_at: float = 0.25) -> ScheduledTau:
    """Tau is `base`, and 0 from step `drop_at` x `total_steps` on (STL-10 paper, table 7).

    At 0 the target is the online network.
    """
    return ScheduledTau("drop", base, total_steps, drop_at=drop_at)


def pair_weights(
    online: Mapping[str, keras.Model], target: Mapping[str, keras.Model]
) -> list[tuple[keras.Variable, keras.Variable]]:
    """Returns (online, target) for every weight of the target's networks.

    Networks are found by name. As each is a copy, weights are paired by their position: their
    names differ where Keras numbers them.

    Raises:
        ValueError: if a network has other weights than its copy.
    """
    check_copies(online, target)
    return [
        pair
        for name, network in target.items()
        for pair in zip(online[name].weights, network.weights, strict=True)
    ]


def check_copies(online: Mapping[str, keras.Model], target: Mapping[str, keras.Model]) -> None:
    """Raises `ValueError` if a network got other weights after its copy, the target, was made."""
    for name, network in target.items():
        shapes, copied = (
            [tuple(w.shape) for w in each.weights] for each in (online[name], network)
        )
        if shapes != copied:
            raise ValueError(
                f"{name}: expected the {len(copied)} weights that it had when the model was made; "
                f"received {len(shapes)}, or other shapes. Change it before, as by enable_lora or "
                "quantize: BYOL(...) copies it for the target"
            )


def match_trainable(online: Mapping[str, keras.Model], target: Mapping[str, keras.Model]) -> None:
    """Freezes the layers of the target's networks that are frozen in the online ones.

    Batch normalisation of a frozen layer uses moving statistics, so that of its copy has to.
    """
    for name, network in target.items():
        layers = compat.all_layers(online[name]), compat.all_layers(network)
        for own, copy in zip(*layers, strict=True):
            if copy.trainable != own.trainable:
                copy.trainable = own.trainable


def sum_of_weights(networks: Mapping[str, keras.Model]) -> float:
    """Returns a number that changes where other weights are loaded."""
    weights = [weight for network in networks.values() for weight in network.weights]
    return sum(float(np.sum(weight.numpy(), dtype=np.float64)) for weight in weights)


class TargetUpdate(keras.callbacks.Callback):
    """Moves the target network after each optimizer step: target += (1 - tau) (online - target).

    Only trainable parameters are averaged, in float32, from the online network as the optimizer has
    just left it; the target's batch statistics are its own (deepmind-research
    `byol/byol_experiment.py`).

    During a `fit` it replaces the model's own update, `BYOL(tau=...)`.

    Example:
        `model.fit(pairs_of_views, callbacks=[TargetUpdate(cosine_tau(0.996, total_steps))])`

    Args:
        schedule: tau for optimizer step k, the first being 0; or a number for a constant tau.
        placement: `step` (default) makes the update the end of the model's compiled step, which is
            right on any number of replicas and for any number of steps per execution. `batch_end`
            runs it as a plain callback after each batch, with the same weights to the last bit; it
            needs one step per execution.

    Raises:
        ValueError: for another placement, for tau outside [0, 1], or if the model of `batch_end`
            has several steps per execution.
        TypeError: for a schedule that is neither a number nor a function, or a model that has no
            `target_pairs()`.
    """

    def __init__(self, schedule: TauSchedule | float, placement: str = "step"):
        super().__init__()
        check_choice("placement", placement, ("step", "batch_end"))
        if isinstance(schedule, numbers.Real):
            schedule = constant_tau(float(schedule))
        if not callable(schedule):
            raise TypeError(
                "tau: expected a number from 0 to 1, or a schedule such as constant_tau(0.99); "
                f"received {schedule!r}"
            )
        self.schedule = schedule
        self.placement = placement
        if not isinstance(schedule, ScheduledTau):
            _check_fraction("its value at step 0", float(self.tau(0.0)))

    def set_model(self, model: keras.Model) -> None:
        """Makes this the model's update, until `BYOL.fit` ends or is interrupted."""
        super().set_model(model)
        if not hasattr(model, "target_pairs"):
            raise TypeError(
                "TargetUpdate needs a byol_tf.BYOL model, with an online and a target network; "
                f"received {type(model).__name__}"
            )
        if self.placement == "batch_end" and model.steps_per_execution > 1:
            raise ValueError(
                'placement: expected "step", as "batch_end" would move the target once in '
                f"{model.steps_per_execution} steps (steps_per_execution)"
            )
        model.target_update = self

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Notes how many optimizer steps the target has followed."""
        self._steps_followed = int(tf.convert_to_tensor(self.model.optimizer.iterations))
        self._last_tau = 1.0

    def tau(self, step: float | tf.Tensor) -> tf.Tensor:
        """Returns tau of an optimizer step (0 is the first), a float32 scalar."""
        return tf.cast(self.schedule(tf.cast(step, tf.float32)), tf.float32)

    def _checked_tau(self, step: int | tf.Tensor) -> tf.Tensor:
        """Returns tau of an optimizer step; one outside [0, 1] ends the step that computes it."""
        tau = self.tau(step)
        if isinstance(self.schedule, ScheduledTau):  # in [0, 1] by its arguments
            return tau
        text = "tau: expected values from 0 to 1; received another one at step"
        return only_if((tau >= 0.0) & (tau <= 1.0), [tau], text, step)[0]

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
        tau = tf.where(updated, self._checked_tau(step), 1.0)

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
            strategy, pairs = self.model.distribute_strategy, self.model.target_pairs()
            iterations = int(tf.convert_to_tensor(self.model.optimizer.iterations))
            updated = iterations > self._steps_followed
            taus = strategy.run(lambda: self.apply(pairs, iterations - 1, updated))
            self._last_tau = strategy.experimental_local_results(taus)[0]
            self._steps_followed = iterations

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Logs tau, since Keras drops what is added to a batch's logs."""
        if self.placement == "batch_end" and logs is not None:
            logs["tau"] = float(self._last_tau)
