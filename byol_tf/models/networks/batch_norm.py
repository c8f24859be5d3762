"""Batch normalisation with the papers' defaults, through TensorFlow's fused kernel if possible."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the BYOL paper's defaults and a faster training pass.

    Keras never calls the fused kernel in training. On one replica this layer does, with the same
    variables and numbers; the moving variance is that of Keras, of the biased batch variance. Where
    statistics are shared between replicas (`synchronized=True`) Keras' own code runs, since the
    kernel can't share them.

    Input and output have the shape `[N, C]` or `[N, H, W, C]` and the compute dtype; statistics are
    float32.

    Reference:
        Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167

    Args:
        momentum: decay of the moving statistics; 0.9 in deepmind-research `byol/configs/byol.py`.
        epsilon: added to the variance; 1e-5 there.
        synchronized: whether batch statistics are those of all replicas. Default: if the strategy
            that the layer is built or loaded under has several (BYOL paper, section 3.3).
        **kwargs: as for `keras.layers.BatchNormalization`. `axis` must be the last one.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        synchronized: bool | None = None,
        **kwargs: Any,
    ) -> None:
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        super().__init__(
            momentum=momentum,
            epsilon=epsilon,
            synchronized=several if synchronized is None else synchronized,
            **kwargs,
        )
        self._by_strategy = synchronized is None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = super().get_config()
        return config | {"synchronized": None} if self._by_strategy else config

    def call(
        self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Normalises by batch statistics in training, by moving statistics otherwise."""
        fused = (
            training
            and self.trainable
            and not self.synchronized
            and mask is None
            and inputs.shape.rank in (2, 4)
            and self.variable_dtype == "float32"  # the kernel's only dtype of gamma and beta
        )
        if not fused:
            return super().call(inputs, training=training, mask=mask)
        images = inputs if inputs.shape.rank == 4 else inputs[:, None, None, :]
        channels = inputs.shape[-1]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            images,
            self.gamma.value if self.scale else tf.ones([channels]),
            self.beta.value if self.center else tf.zeros([channels]),
            epsilon=self.epsilon,
            data_format="NHWC",
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), tf.float32)
        self._update_moving(self.moving_mean, mean)
        self._update_moving(self.moving_variance, variance * (count - 1.0) / count)
        return outputs if inputs.shape.rank == 4 else outputs[:, 0, 0, :]

    def _update_moving(self, moving: keras.Variable, batch: tf.Tensor) -> None:
        moving.assign(moving * self.momentum + tf.stop_gradient(batch) * (1.0 - self.momentum))
