"""The papers' optimizers: LARS, and Keras' Adam and SGD with L2 decay that spares biases and normalisation parameters."""

import math

import keras
import tensorflow as tf


def spared(variable) -> bool:
    """Whether a variable gets no decay and no trust ratio: biases and normalisation parameters, those with at most one axis."""
    return len(variable.shape) <= 1


@keras.saving.register_keras_serializable(package="byol_tf")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling with momentum, exactly as deepmind-research `byol/utils/optimizers.py`.

    For a kernel w with gradient g: g' = g + l2 w; g'' = eta |w| / |g'| g' (the ratio is 1 where either norm is 0); m = momentum m + g'';
    w -= learning_rate m. Biases and normalisation parameters skip the first two.

    Args:
        learning_rate: a float or a `LearningRateSchedule`.
        momentum: decay of the accumulated gradient.
        l2: weight decay, added to the gradient before the trust ratio.
        eta: trust coefficient.
        **kwargs: as `keras.optimizers.Optimizer`.
    """

    def __init__(self, learning_rate=0.2, momentum=0.9, l2=1.5e-6, eta=1e-3, name="lars", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.l2 = l2
        self.eta = eta

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momenta = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        learning_rate = tf.cast(learning_rate, variable.dtype)
        gradient = tf.cast(gradient, variable.dtype)
        momentum = self._momenta[self._get_variable_index(variable)]
        if not spared(variable):
            gradient += self.l2 * variable
            weight_norm, gradient_norm = tf.norm(variable), tf.norm(gradient)
            either_is_zero = (weight_norm == 0.0) | (gradient_norm == 0.0)
            safe = tf.where(either_is_zero, 1.0, gradient_norm)
            gradient *= tf.where(either_is_zero, 1.0, self.eta * weight_norm / safe)
        self.assign(momentum, self.momentum * momentum + gradient)
        self.assign_sub(variable, learning_rate * momentum)

    def get_config(self):
        return super().get_config() | {"momentum": self.momentum, "l2": self.l2, "eta": self.eta}


class _L2Decay:
    """Adds `l2` x weight to the gradients of kernels, as the papers' weight decay does (Keras' own is decoupled, as in AdamW)."""

    def __init__(self, learning_rate=1e-3, l2=0.0, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.l2 = l2

    def update_step(self, gradient, variable, learning_rate):
        if self.l2 and not spared(variable):
            gradient = gradient + tf.cast(self.l2, variable.dtype) * variable
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        return super().get_config() | {"l2": self.l2}


@keras.saving.register_keras_serializable(package="byol_tf")
class Adam(_L2Decay, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with L2 decay (STL-10 paper, section 3.4)."""


@keras.saving.register_keras_serializable(package="byol_tf")
class SGD(_L2Decay, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with L2 decay."""


@keras.saving.register_keras_serializable(package="byol_tf")
class WarmupSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then cosine to 0 over the rest, or constant (deepmind-research `byol/utils/schedules.py`).

    Args:
        peak: the rate at the end of the warm-up.
        total_steps: optimizer steps of the whole run.
        warmup_steps: steps of the warm-up; 0 for none.
        kind: `cosine` or `constant`.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int = 0, kind: str = "cosine"):
        if kind not in ("cosine", "constant"):
            raise ValueError(f'schedule: expected "cosine" or "constant"; received {kind!r}')
        self.peak, self.total_steps, self.warmup_steps, self.kind = peak, total_steps, warmup_steps, kind

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        rate = tf.constant(self.peak, tf.float32)
        if self.kind == "cosine":
            progress = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
            rate *= (tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0)) + 1.0) / 2.0
        if self.warmup_steps:
            rate = tf.where(step < self.warmup_steps, self.peak * step / self.warmup_steps, rate)
        return rate

    def get_config(self):
        return {"peak": self.peak, "total_steps": self.total_steps, "warmup_steps": self.warmup_steps, "kind": self.kind}


def build_optimizer(name: str, schedule: WarmupSchedule, weight_decay: float = 0.0, momentum: float = 0.9) -> keras.optimizers.Optimizer:
    """The optimizer that a config names: `lars`, `adam` or `sgd` (Nesterov off). Raises `ValueError` for another name."""
    if name == "lars":
        return LARS(schedule, momentum=momentum, l2=weight_decay)
    if name == "adam":
        return Adam(schedule, l2=weight_decay, beta_1=momentum)
    if name == "sgd":
        return SGD(schedule, l2=weight_decay, momentum=momentum)
    raise ValueError(f'optimizer: expected "lars", "adam" or "sgd"; received {name!r}')
