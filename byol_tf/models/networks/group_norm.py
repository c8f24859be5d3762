"""Group normalisation, whose statistics are those of each image alone.

Wu and He, 2018, https://arxiv.org/abs/1803.08494.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from byol_tf.constants import GROUPS


@keras.saving.register_keras_serializable(package="byol_tf")
class GroupNorm(keras.layers.Layer):
    """`keras.layers.GroupNormalization` in fewer passes over the images.

    It has the same variables and gives the same numbers.

    Input and output have the shape `[N, C]` or `[N, H, W, C]` and the compute dtype; statistics and
    variables are float32. Building it raises `ValueError` if C isn't a multiple of `groups`, or if
    a group of an image has a single number, whose normalised value is always 0.

    Args:
        groups: number of groups of neighbouring channels; 16 in "BYOL works even without batch
            statistics", section 3.3. One group is layer normalisation over positions and channels.
        epsilon: added to the variance.
        scale: whether there is a trainable `gamma`; otherwise it is 1.
        center: whether there is a trainable `beta`; otherwise it is 0.
        gamma_initializer: of `gamma`.
        **kwargs: as for `keras.layers.Layer`.
    """

    is_normalization = True

    def __init__(
        self,
        groups: int = GROUPS,
        epsilon: float = 1e-5,
        scale: bool = True,
        center: bool = True,
        gamma_initializer: str | keras.initializers.Initializer = "ones",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon
        self.scale, self.center = scale, center
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def build(self, input_shape: Sequence[int]) -> None:
        """Creates `gamma` and `beta`, float32 `[C]`, if the layer has them."""
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: expected a number of channels that {self.groups} groups divide; "
                f"received {channels}"
            )
        if None not in input_shape[1:] and math.prod(input_shape[1:]) == self.groups:
            raise ValueError(
                f"{self.name}: expected several numbers in each of {self.groups} groups, as one "
                f"alone is normalised to 0; received {channels} channels at one position"
            )
        common = {"shape": (channels,), "dtype": "float32", "autocast": False}
        if self.scale:
            self.gamma = self.add_weight(initializer=self.gamma_initializer, name="gamma", **common)
        if self.center:
            self.beta = self.add_weight(initializer="zeros", name="beta", **common)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises `[N, ..., C]` over positions and the channels of each group."""
        channels = inputs.shape[-1]
        flat = tf.reshape(inputs, [tf.shape(inputs)[0], -1, channels])
        outputs = _group_norm(
            flat,
            tf.convert_to_tensor(self.gamma) if self.scale else tf.ones([channels]),
            tf.convert_to_tensor(self.beta) if self.center else tf.zeros([channels]),
            self.groups,
            self.epsilon,
        )
        return tf.reshape(outputs, tf.shape(inputs))

    def compute_output_shape(self, input_shape: Sequence[int]) -> Sequence[int]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {
            "groups": self.groups,
            "epsilon": self.epsilon,
            "scale": self.scale,
            "center": self.center,
            "gamma_initializer": keras.initializers.serialize(self.gamma_initializer),
        }


def _group_norm(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, groups: int, epsilon: float
) -> tf.Tensor:
    """Normalises `[N, P, C]` over the P positions and the channels of a group.

    With s = 1 / sqrt(variance + epsilon) the output is gamma s (x - mean) + beta. Of all of `x`
    only sums over positions and element-wise operations with `[N, C]` are taken, and the gradient
    is written by hand: TensorFlow's own stores and reads several times as many arrays of that size.
    """

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, object]:
        positions = tf.cast(tf.shape(x)[1], tf.float32)
        x32 = tf.cast(x, tf.float32)
        mean = _group_mean(tf.reduce_sum(x32, 1) / positions, groups)  # [N, C]
        # Not the mean of squares less the squared mean, which loses digits where the mean is large.
        squares = tf.reduce_sum(tf.math.squared_difference(x32, mean[:, None]), 1)
        scale = tf.math.rsqrt(_group_mean(squares / positions, groups) + epsilon)  # [N, C]

        def gradient(by_outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            by_outputs = tf.cast(by_outputs, tf.float32)
            centred = tf.cast(x, tf.float32) - mean[:, None]
            by_beta = tf.reduce_sum(by_outputs, 1)
            by_gamma = scale * tf.reduce_sum(by_outputs * centred, 1)
            # mean and variance depend on every x of the group: one constant and one linear term
            by_mean = -scale * _group_mean(gamma * by_beta, groups) / positions
            by_scale = -(scale**2) * _group_mean(gamma * by_gamma, groups) / positions
            by_x = (
                by_outputs * (scale * gamma)[:, None]
                + centred * by_scale[:, None]
                + by_mean[:, None]
            )
            return tf.cast(by_x, x.dtype), tf.reduce_sum(by_gamma, 0), tf.reduce_sum(by_beta, 0)

        factor = scale * gamma
        outputs = x32 * factor[:, None] + (beta - mean * factor)[:, None]
        return tf.cast(outputs, x.dtype), gradient

    return normalize(x, gamma, beta)


def _group_mean(x: tf.Tensor, groups: int) -> tf.Tensor:
    """Replaces each channel of `[N, C]` by the mean of its group."""
    channels = x.shape[-1]
    means = tf.reduce_mean(tf.reshape(x, [-1, groups, channels // groups]), -1)
    return tf.repeat(means, channels // groups, axis=-1)
