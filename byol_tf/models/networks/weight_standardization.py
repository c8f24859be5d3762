"""Layers that standardise their kernel each time they use it.

Qiao et al., 2019, https://arxiv.org/abs/1903.10520; "BYOL works even without batch statistics",
section 2.
"""

from typing import Any

import keras
import tensorflow as tf

from byol_tf.models.networks.conv2d import Conv2D


def standardized(kernel: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Standardises a kernel: `(W - mean) / sqrt(variance + epsilon)` of each unit over its fan-in.

    Args:
        kernel: float32 `[..., units]`.
        epsilon: added to the biased variance; 1e-4 in the paper.

    Returns:
        float32 of the same shape, through which gradients flow.
    """
    kernel = tf.convert_to_tensor(kernel)
    units = kernel.shape[-1]
    # Batch normalisation of a "batch" of weights is the same formula, with a fused kernel forward
    # and backward.
    rows = tf.reshape(kernel, [-1, 1, 1, units])
    outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
        rows, tf.ones([units]), tf.zeros([units]), epsilon=epsilon
    )
    return tf.reshape(outputs, kernel.shape)


class _Standardized(keras.layers.Layer):
    """Mixin: the kernel stays float32 until it is standardised, whatever the compute dtype is."""

    def __init__(self, *args: Any, epsilon: float = 1e-4, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.epsilon = epsilon

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> keras.Variable:
        """Adds a weight, as Keras' layer does; the kernel isn't cast to the compute dtype."""
        if name == "kernel":
            kwargs["autocast"] = False
        return super().add_weight(*args, name=name, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="byol_tf")
class WSConv2D(_Standardized, Conv2D):
    """`keras.layers.Conv2D` with a standardised kernel.

    Input has the shape `[N, H, W, C]`, output `[N, H', W', filters]`, both in the compute dtype.

    Args:
        *args: as for `keras.layers.Conv2D`.
        epsilon: added to the variance of the kernel; 1e-4 in the paper.
        **kwargs: as for `keras.layers.Conv2D`.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves `[N, H, W, C]` with the standardised kernel."""
        kernel = tf.cast(standardized(kernel, self.epsilon), self.compute_dtype)
        return super().convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(package="byol_tf")
class WSDense(_Standardized, keras.layers.Dense):
    """`keras.layers.Dense` with a standardised kernel.

    Input has the shape `[..., features]`, output `[..., units]`, both in the compute dtype.

    Args:
        *args: as for `keras.layers.Dense`.
        epsilon: added to the variance of the kernel; 1e-4 in the paper.
        **kwargs: as for `keras.layers.Dense`.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Multiplies `[..., features]` by the standardised kernel."""
        kernel = tf.cast(standardized(self.kernel, self.epsilon), self.compute_dtype)
        outputs = keras.ops.matmul(inputs, kernel)
        if self.bias is not None:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)
