"""Layers that standardise their kernel each time they use it (Qiao et al. 2019; paper without batch
statistics, section 2)."""

import keras
import tensorflow as tf

from byol_tf.models.networks.conv2d import Conv2D


def standardized(kernel, epsilon: float) -> tf.Tensor:
    """`(W - mean) / sqrt(variance + epsilon)` of each output unit, over its fan-in; the variance is
    the biased one.

    Args:
        kernel: float32 `[..., units]`.
        epsilon: 1e-4 in the paper.

    Returns:
        float32 of the same shape, through which gradients flow.
    """
    kernel = tf.convert_to_tensor(kernel)
    units = kernel.shape[-1]
    # The batch normalisation of a "batch" of weights is the same formula, and a fused kernel
    # forward and back.
    rows = tf.reshape(kernel, [-1, 1, 1, units])
    outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
        rows, tf.ones([units]), tf.zeros([units]), epsilon=epsilon
    )
    return tf.reshape(outputs, kernel.shape)


class _Standardized:
    """What both layers share: the kernel stays float32 until it is standardised, whatever the layer
    computes in."""

    def __init__(self, *args, epsilon=1e-4, **kwargs):
        super().__init__(*args, **kwargs)
        self.epsilon = epsilon

    def add_weight(self, *args, name=None, **kwargs):
        if name == "kernel":
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def get_config(self):
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="byol_tf")
class WSConv2D(_Standardized, Conv2D):
    """`keras.layers.Conv2D` with a standardised kernel.

    Args:
        *args, **kwargs: as `keras.layers.Conv2D`.
        epsilon: added to the variance of the kernel; 1e-4 in the paper.
    """

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(
            inputs, tf.cast(standardized(kernel, self.epsilon), self.compute_dtype)
        )


@keras.saving.register_keras_serializable(package="byol_tf")
class WSDense(_Standardized, keras.layers.Dense):
    """`keras.layers.Dense` with a standardised kernel.

    Args:
        *args, **kwargs: as `keras.layers.Dense`.
        epsilon: added to the variance of the kernel; 1e-4 in the paper.
    """

    def call(self, inputs, training=None):
        outputs = keras.ops.matmul(
            inputs, tf.cast(standardized(self.kernel, self.epsilon), self.compute_dtype)
        )
        if self.bias is not None:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)
