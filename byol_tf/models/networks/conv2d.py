"""Convolution with the quicker of two ways to its kernel's gradient."""

import math

import keras
import tensorflow as tf

from byol_tf.devices import on_cpu

_ROWS_PER_UNIT = 8
"""Output places of a batch per output channel, up to which the product was the quicker way wherever
it was tried. Far beyond, patches are many and the kernel small, and it is the slower one."""


@keras.saving.register_keras_serializable(package="byol_tf")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, quicker to train in bfloat16 on a CPU.

    There oneDNN's kernel gradient is slow where maps are small and kernels large, as in the last
    groups of a ResNet, and wrong for a 3x3 kernel with stride 2 on a map of one place. One matrix
    product of the input's patches and the output's gradient gives the same sum. Where that doesn't
    pay, and everywhere else, this is Keras' layer.

    Args:
        *args, **kwargs: as `keras.layers.Conv2D`.
    """

    def convolution_op(self, inputs, kernel):
        if isinstance(inputs, tf.Tensor) and self._product_pays(inputs):
            return _convolution(inputs, tf.cast(kernel, inputs.dtype), self.strides)
        return super().convolution_op(inputs, kernel)

    def _product_pays(self, inputs):
        plain = (
            self.padding == "same"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and self.data_format == "channels_last"
        )
        if not plain or inputs.dtype != tf.bfloat16 or None in inputs.shape:
            return False
        images, *places, _ = self.compute_output_shape(inputs.shape)
        return images * math.prod(places) <= _ROWS_PER_UNIT * self.filters and on_cpu(
            tf.distribute.get_strategy()
        )


def _convolution(inputs, kernel, strides):
    """SAME convolution `[N, H, W, C]` with `[k, k, C, units]`."""
    strides = [1, *strides, 1]

    @tf.custom_gradient
    def forward(inputs, kernel):
        def gradients(upstream):
            to_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=inputs.shape,
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding="SAME",
            )
            patches = inputs
            if max(*kernel.shape[:2], *strides) > 1:
                patches = tf.image.extract_patches(
                    inputs, [1, *kernel.shape[:2], 1], strides, [1, 1, 1, 1], "SAME"
                )
            units = kernel.shape[-1]
            product = tf.matmul(
                tf.reshape(patches, [-1, patches.shape[-1]]),
                tf.reshape(upstream, [-1, units]),
                transpose_a=True,
            )
            return to_inputs, tf.reshape(product, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, "SAME"), gradients

    return forward(inputs, kernel)
