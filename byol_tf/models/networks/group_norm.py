"""Group normalisation (Wu and He 2018), which treats each image alone."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class GroupNorm(keras.layers.Layer):
    """The variables and numbers of `keras.layers.GroupNormalization`, in fewer passes over the
    images.

    Args:
        groups: of neighbouring channels; 16 in the paper without batch statistics, section 3.3. One
            is layer normalisation over places and channels.
        epsilon: added to the variance.

    Input and output: `[N, C]` or `[N, H, W, C]` in the compute dtype; statistics are float32.
    `ValueError` if C isn't a multiple of `groups`.
    """

    is_normalization = True

    def __init__(self, groups: int = 16, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.groups:
            raise ValueError(
                f"{self.name}: expected a number of channels that {self.groups} groups divide; "
                f"received {channels}"
            )
        self.gamma = self.add_weight(
            shape=(channels,), initializer="ones", name="gamma", autocast=False
        )
        self.beta = self.add_weight(
            shape=(channels,), initializer="zeros", name="beta", autocast=False
        )

    def call(self, inputs):
        places = tf.reshape(inputs, [tf.shape(inputs)[0], -1, inputs.shape[-1]])
        outputs = _group_norm(
            places,
            tf.convert_to_tensor(self.gamma),
            tf.convert_to_tensor(self.beta),
            self.groups,
            self.epsilon,
        )
        return tf.reshape(outputs, tf.shape(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"groups": self.groups, "epsilon": self.epsilon}


def _group_norm(x, gamma, beta, groups: int, epsilon: float):
    """`[N, places, C]` normalised over the places and channels of a group.

    Only sums over places and element-wise operations with `[N, C]` see all of `x`, and the gradient
    is by hand: TensorFlow's own keeps and takes several times as many arrays of that size.
    """

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        count = tf.cast(tf.shape(x)[1], tf.float32)
        wide = tf.cast(x, tf.float32)
        mean = _group_mean(tf.reduce_sum(wide, 1) / count, groups)
        # Not the mean of squares less the squared mean, which loses digits where the mean is large.
        variance = _group_mean(
            tf.reduce_sum(tf.math.squared_difference(wide, mean[:, None]), 1) / count, groups
        )
        scale = tf.math.rsqrt(variance + epsilon)

        def gradient(by_outputs):
            by_outputs, centred = (
                tf.cast(by_outputs, tf.float32),
                tf.cast(x, tf.float32) - mean[:, None],
            )
            by_beta = tf.reduce_sum(by_outputs, 1)
            by_gamma = scale * tf.reduce_sum(by_outputs * centred, 1)
            by_mean = -scale * _group_mean(gamma * by_beta, groups) / count
            by_scale = -(scale**2) * _group_mean(gamma * by_gamma, groups) / count
            by_x = (
                by_outputs * (scale * gamma)[:, None]
                + centred * by_scale[:, None]
                + by_mean[:, None]
            )
            return tf.cast(by_x, x.dtype), tf.reduce_sum(by_gamma, 0), tf.reduce_sum(by_beta, 0)

        factor = scale * gamma
        outputs = wide * factor[:, None] + (beta - mean * factor)[:, None]
        return tf.cast(outputs, x.dtype), gradient

    return normalize(x, gamma, beta)


def _group_mean(x, groups: int) -> tf.Tensor:
    """`[N, C]` to the mean of each one's group, `[N, C]`."""
    channels = x.shape[-1]
    means = tf.reduce_mean(tf.reshape(x, [-1, groups, channels // groups]), -1)
    return tf.repeat(means, channels // groups, axis=-1)
