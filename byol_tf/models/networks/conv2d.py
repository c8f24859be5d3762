"""Convolution with the faster of two ways to its kernel's gradient."""

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from byol_tf.devices import on_cpu

_MAX_ROWS_PER_FILTER = 8
"""Output positions of a batch, per filter, up to which the matrix product was faster in all
measurements. With many more the patches are large and the kernel small, and it is slower."""


@keras.saving.register_keras_serializable(package="byol_tf")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, faster to train in bfloat16 on a CPU.

    There oneDNN's kernel gradient is slow where maps are small and kernels large, as in the last
    groups of a ResNet, and wrong for a 3x3 kernel with stride 2 on a map of one pixel. A matrix
    product of the input's patches and the output's gradient gives the same sum. Where it isn't
    faster, and on all other devices, this is Keras' layer.

    Input has the shape `[N, H, W, C]`, output `[N, H', W', filters]`, both in the compute dtype.

    Args:
        *args: as for `keras.layers.Conv2D`.
        **kwargs: as for `keras.layers.Conv2D`.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolves `[N, H, W, C]` with the kernel `[k, k, C, filters]`."""
        if isinstance(inputs, tf.Tensor) and self._product_is_faster(inputs):
            return _same_convolution(inputs, tf.cast(kernel, inputs.dtype), self.strides)
        return super().convolution_op(inputs, kernel)

    def _product_is_faster(self, inputs: tf.Tensor) -> bool:
        supported = (
            self.padding == "same"
            and self.groups == 1
            and self.dilation_rate == (1, 1)
            and self.data_format == "channels_last"
        )
        if not supported or inputs.dtype != tf.bfloat16 or None in inputs.shape:
            return False
        images, *positions, _ = self.compute_output_shape(inputs.shape)
        rows = images * math.prod(positions)
        return rows <= _MAX_ROWS_PER_FILTER * self.filters and on_cpu(tf.distribute.get_strategy())


def _same_convolution(inputs: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """Convolves `[N, H, W, C]` with `[k, k, C, filters]`, padded to `same`.

    The gradient by the kernel is a matrix product of patches.
    """
    strides = [1, *strides, 1]

    @tf.custom_gradient
    def forward(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, object]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_inputs = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=inputs.shape,
                filter=kernel,
                out_backprop=upstream,
                strides=strides,
                padding="SAME",
            )
            patches = inputs  # [N, H', W', k k C]
            if max(*kernel.shape[:2], *strides) > 1:
                patches = tf.image.extract_patches(
                    inputs, [1, *kernel.shape[:2], 1], strides, [1, 1, 1, 1], "SAME"
                )
            filters = kernel.shape[-1]
            by_kernel = tf.matmul(
                tf.reshape(patches, [-1, patches.shape[-1]]),  # [rows, k k C]
                tf.reshape(upstream, [-1, filters]),  # [rows, filters]
                transpose_a=True,
            )
            return by_inputs, tf.reshape(by_kernel, kernel.shape)

        return tf.nn.conv2d(inputs, kernel, strides, "SAME"), gradients

    return forward(inputs, kernel)
