"""The papers' learning rates over a run."""

import math

import keras
import tensorflow as tf


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
