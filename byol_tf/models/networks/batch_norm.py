"""Batch normalisation as the papers set it, through TensorFlow's fused kernel where that is
possible."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` with the BYOL paper's defaults and a faster training pass.

    Keras never calls the fused kernel while training; on one replica this layer does, with the same
    variables and numbers (the moving variance is Keras' biased one). Where statistics must be
    shared between replicas (`synchronized=True`) Keras' own code runs, since the kernel can't.

    Args:
        momentum: decay of the moving statistics; deepmind-research `byol/configs/byol.py` has 0.9.
        epsilon: added to the variance; 1e-5 there.
        **kwargs: as `keras.layers.BatchNormalization`. `axis` must be the last one.

    Input and output: `[N, C]` or `[N, H, W, C]`, in the compute dtype; statistics are float32.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        fused = (
            training
            and self.trainable
            and not self.synchronized
            and mask is None
            and inputs.shape.rank in (2, 4)
        )
        fused = fused and self.scale and self.center
        if not fused:
            return super().call(inputs, training=training, mask=mask)
        images = inputs if inputs.shape.rank == 4 else inputs[:, None, None, :]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            images,
            self.gamma.value,
            self.beta.value,
            epsilon=self.epsilon,
            data_format="NHWC",
            is_training=True,
        )
        # The kernel returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), tf.float32)
        self._follow(self.moving_mean, mean)
        self._follow(self.moving_variance, variance * (count - 1.0) / count)
        return outputs if inputs.shape.rank == 4 else outputs[:, 0, 0, :]

    def _follow(self, moving, batch):
        moving.assign(moving * self.momentum + tf.stop_gradient(batch) * (1.0 - self.momentum))


def batch_norm(name: str) -> keras.layers.Layer:
    """A `BatchNorm` layer, synchronised where the current distribution strategy has several
    replicas (BYOL paper, section 3.3)."""
    return BatchNorm(synchronized=tf.distribute.get_strategy().num_replicas_in_sync > 1, name=name)
