"""LARS, and Keras' Adam, AdamW, Lamb and SGD with the rules of the papers.

Weight decay excludes biases and normalisation parameters, and groups of variables may have a
learning rate of their own.
"""

import math
from collections.abc import Iterable

import keras
import tensorflow as tf
from keras.optimizers.schedules import LearningRateSchedule

from byol_tf import compat
from byol_tf.errors import check_choice


@keras.saving.register_keras_serializable(package="byol_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then a half cosine to 0 over the rest, or a constant rate.

    As deepmind-research `byol/utils/schedules.py`.

    Args:
        peak: the rate at the end of the warm-up.
        total_steps: optimizer steps of the run.
        warmup_steps: steps of the warm-up; 0 for none.
        decay: after the warm-up, `cosine` or `constant`.
        frozen_steps: steps before the warm-up, at a rate of 0.

    Raises:
        ValueError: for another decay.
    """

    def __init__(
        self,
        peak: float,
        total_steps: int,
        warmup_steps: int = 0,
        decay: str = "cosine",
        frozen_steps: int = 0,
    ):
        check_choice("decay", decay, ("cosine", "constant"))
        self.peak, self.total_steps = peak, total_steps
        self.warmup_steps, self.decay = warmup_steps, decay
        self.frozen_steps = frozen_steps

    def __call__(self, step: int | tf.Tensor) -> tf.Tensor:
        """Returns the rate of a step (0 is the first), a float32 scalar."""
        step = tf.cast(step, tf.float32) - self.frozen_steps
        rate = tf.constant(self.peak, tf.float32)
        if self.decay == "cosine":
            decay_steps = self.total_steps - self.frozen_steps - self.warmup_steps
            progress = (step - self.warmup_steps) / max(decay_steps, 1)
            rate *= (tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)) + 1.0) / 2.0
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * step / self.warmup_steps, rate)
        return tf.where(step < 0.0, 0.0, rate) if self.frozen_steps else rate

    def get_config(self) -> dict:
        """Returns the arguments."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "decay": self.decay,
            "frozen_steps": self.frozen_steps,
        }


NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)


SLOTS = {"lars": 1, "adam": 2, "adamw": 2, "lamb": 2, "sgd": 1}
"""State variables of each optimizer for every trained one; `sgd` without momentum has none."""


def is_excluded(variable: keras.Variable | tf.Variable) -> bool:
    """Returns whether a variable gets no weight decay and no trust ratio by its shape alone.

    Most biases and normalisation parameters have one axis.
    """
    return len(variable.shape) <= 1


def exclude_norm_and_bias(
    optimizer: keras.optimizers.Optimizer, models: keras.Model | Iterable[keras.Model]
) -> list[keras.Variable]:
    """Excludes biases and normalisation parameters, whatever their shape, from weight decay.

    `LARS` gives them no trust ratio either. A normalisation layer is one of `NORMALIZATIONS`, a
    subclass, or a layer with the attribute `is_normalization = True`. A bias is the `bias` of a
    layer. Names don't matter.

    Example:
        `exclude_norm_and_bias(optimizer, model.networks.values())` before `model.compile`

    Args:
        optimizer: not built yet; of a `LossScaleOptimizer`, its inner optimizer is meant.
        models: built. All in one call, which replaces an earlier one or an earlier
            `exclude_from_weight_decay`. Like the latter, which it calls, it is no part of
            `get_config`.

    Returns:
        The excluded variables, those with at most one axis included.

    Raises:
        ValueError: if the optimizer is built or a model isn't.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    models = [models] if isinstance(models, keras.Model) else list(models)
    if optimizer.built:
        raise ValueError(
            "exclude_norm_and_bias: expected an optimizer that is not built yet; received "
            f'"{optimizer.name}", which is'
        )
    for model in models:
        if not model.built:
            raise ValueError(
                f'exclude_norm_and_bias: expected built models; received "{model.name}", which is '
                "not"
            )
    excluded = []
    for layer in (layer for model in models for layer in compat.all_layers(model)):
        if isinstance(layer, NORMALIZATIONS) or getattr(layer, "is_normalization", False):
            excluded += layer.weights
        elif isinstance(getattr(layer, "bias", None), keras.Variable):
            excluded.append(layer.bias)
    optimizer.exclude_from_weight_decay(var_list=excluded)
    return excluded


class _ParamGroups(compat.OptimizerHooks):
    """Adds the rule of `is_excluded`, and learning rates of groups, to a Keras optimizer.

    Args:
        *args: as the optimizer's.
        exclude_1d: whether the rule holds; otherwise variables of every shape get weight decay, and
            with `LARS` a trust ratio.
        **kwargs: as the optimizer's.
    """

    def __init__(self, *args, exclude_1d: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.exclude_1d = exclude_1d
        self._group_rates: dict = {}

    def set_group_rate(
        self, variables: Iterable[keras.Variable], rate: float | LearningRateSchedule
    ) -> None:
        """Gives some variables a learning rate of their own.

        The SimSiam report has a constant one for the predictor (section IV.B). A schedule is
        evaluated where Keras evaluates the optimizer's own: at the number of gradients applied,
        which with gradient accumulation is not that of updates. A later call for the same variable
        replaces an earlier one. Like `exclude_from_weight_decay`, groups are no
        part of `get_config`: set them again on a deserialised optimizer. With a
        `LossScaleOptimizer`, set them on the inner one.

        Args:
            variables: already created; any iterable of at least one.
            rate: of those variables. Set it before the first step: a traced step keeps what it was
                traced with.

        Raises:
            ValueError: if there are no variables or the rate is something else.
        """
        keys = [self.variable_key(variable) for variable in variables]
        if not keys:
            raise ValueError(
                "set_group_rate: expected at least one variable; received none. Is the model built?"
            )
        if not isinstance(rate, float | int | LearningRateSchedule):
            raise ValueError(
                f"set_group_rate: expected a float or a LearningRateSchedule; received {rate!r}"
            )
        self._group_rates.update(dict.fromkeys(keys, rate))

    @property
    def has_group_rates(self) -> bool:
        """True if `set_group_rate` was called."""
        return bool(self._group_rates)

    def get_config(self) -> dict:
        config = super().get_config()  # type: ignore[misc]  # of Optimizer
        return config | {"exclude_1d": self.exclude_1d}

    def _rate(self, variable: tf.Variable, learning_rate: tf.Tensor) -> tf.Tensor:
        """Returns the rate of a variable in this step, in its dtype.

        Args:
            variable: under a strategy, one replica's copy.
            learning_rate: of variables without a group.
        """
        rate = self._group_rates.get(self.variable_key(variable), learning_rate)
        return tf.cast(
            rate(self.gradients_seen) if isinstance(rate, LearningRateSchedule) else rate,
            variable.dtype,
        )

    def decays(self, variable: tf.Variable) -> bool:
        return not (self.exclude_1d and is_excluded(variable)) and super().decays(variable)


@keras.saving.register_keras_serializable(package="byol_tf")
class LARS(_ParamGroups, keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling with momentum.

    You et al., "Large batch training of convolutional networks", 2017,
    https://arxiv.org/abs/1708.03888.

    Exactly as deepmind-research `byol/utils/optimizers.py`. For a kernel w with gradient g::

        g' = g + l2 w
        g'' = eta |w| / |g'| g'    (the ratio is 1 where either norm is 0)
        m = momentum m + g''
        w -= learning_rate m

    Biases and normalisation parameters (see `exclude_norm_and_bias`) skip the first two.

    Example:
        `LARS(WarmupSchedule(0.2, total_steps, warmup_steps), l2=1.5e-6)`

    Args:
        learning_rate: a float or a `LearningRateSchedule`.
        momentum: decay of the accumulated gradient.
        l2: weight decay, added to the gradient before the trust ratio.
        eta: trust coefficient.
        name: of the optimizer.
        **kwargs: as `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.2,
        momentum: float = 0.9,
        l2: float = 1.5e-6,
        eta: float = 1e-3,
        name: str = "lars",
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = l2
        self.eta = eta

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates a momentum for each variable."""
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Updates one variable and its momentum."""
        gradient = tf.cast(gradient, variable.dtype)
        momentum = self._momenta[self.variable_index(variable)]
        if self.decays(variable):
            gradient += self.l2 * variable
            weight_norm, gradient_norm = tf.norm(variable), tf.norm(gradient)
            either_is_zero = (weight_norm == 0.0) | (gradient_norm == 0.0)
            safe = tf.where(either_is_zero, 1.0, gradient_norm)
            gradient *= tf.where(either_is_zero, 1.0, self.eta * weight_norm / safe)
        self.assign(momentum, self.momentum * momentum + gradient)
        self.assign_sub(variable, self._rate(variable, learning_rate) * momentum)

    def get_config(self) -> dict:
        """Returns the arguments."""
        return super().get_config() | {"momentum": self.momentum, "l2": self.l2, "eta": self.eta}


class _L2Decay(_ParamGroups, keras.optimizers.Optimizer):
    """Adds `l2` x weight to the gradients of kernels, as the papers' weight decay does.

    Keras' own decay is decoupled, as in AdamW.
    """

    def __init__(
        self, learning_rate: float | LearningRateSchedule = 1e-3, l2: float = 0.0, **kwargs
    ):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.l2 = l2

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        if self.l2 and self.decays(variable):
            gradient = gradient + tf.cast(self.l2, variable.dtype) * variable
        super().update_step(gradient, variable, self._rate(variable, learning_rate))

    def get_config(self) -> dict:
        return super().get_config() | {"l2": self.l2}


@keras.saving.register_keras_serializable(package="byol_tf")
class Adam(_L2Decay, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with L2 decay (STL-10 paper, section 3.4)."""


@keras.saving.register_keras_serializable(package="byol_tf")
class SGD(_L2Decay, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with L2 decay."""


class _DecoupledDecay(_ParamGroups, keras.optimizers.Optimizer):
    """Decays weights before the step, weight -= rate x weight_decay x weight, as Keras does.

    The rate is that of the variable's group.
    """

    def apply_decoupled_decay(self, variables: list) -> None:
        """Does nothing: Keras would take the optimizer's rate for all variables.

        `update_step` takes the variable's.
        """

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        rate = self._rate(variable, learning_rate)
        if self.weight_decay and self.decays(variable):
            self.assign_sub(variable, variable * tf.cast(self.weight_decay, variable.dtype) * rate)
        super().update_step(gradient, variable, rate)


@keras.saving.register_keras_serializable(package="byol_tf")
class AdamW(_DecoupledDecay, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` (Loshchilov and Hutter 2019) with the rules of this module."""


@keras.saving.register_keras_serializable(package="byol_tf")
class Lamb(_DecoupledDecay, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb`, whose decay excludes biases and normalisation parameters.

    They get a trust ratio, as in Keras. Keras decouples the decay, where You et al. 2020 add it to
    the step before the trust ratio.
    """


def build_optimizer(
    name: str,
    schedule: WarmupSchedule,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    exclude_1d: bool = True,
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a name in configs.

    Args:
        name: `lars`, `adam`, `adamw`, `lamb` or `sgd` (Nesterov off).
        schedule: of the learning rate.
        weight_decay: L2 (`lars`, `adam`, `sgd`) or decoupled (`adamw`, `lamb`).
        momentum: of `lars` and `sgd`; the others' first moment.
        exclude_1d: whether variables with at most one axis, biases and normalisation parameters,
            get no weight decay.

    Raises:
        ValueError: for another name.
    """
    check_choice("optimizer", name, tuple(SLOTS))
    if name == "lars":
        return LARS(schedule, momentum=momentum, l2=weight_decay, exclude_1d=exclude_1d)
    if name == "adam":
        return Adam(schedule, l2=weight_decay, beta_1=momentum, exclude_1d=exclude_1d)
    if name == "adamw":
        return AdamW(schedule, weight_decay=weight_decay, beta_1=momentum, exclude_1d=exclude_1d)
    if name == "lamb":
        return Lamb(schedule, weight_decay=weight_decay, beta_1=momentum, exclude_1d=exclude_1d)
    return SGD(schedule, l2=weight_decay, momentum=momentum, exclude_1d=exclude_1d)
