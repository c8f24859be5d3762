"""Scale and offset that one batch sets, in place of batch normalisation (paper without batch
statistics, section 3.2)."""

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="byol_tf")
class DataInit(keras.layers.Layer):
    """`gamma x + beta` for each channel; `initialize_from_data` makes that what batch normalisation
    gives on one batch.

    Args:
        gain: what `gamma` would be after a batch normalisation: 1, or 0 for the last one of a
            residual block. Until it is initialised the layer has `gamma = gain` and `beta = 0`.
        epsilon: added to the variance.

    Input and output: `[..., C]` in the compute dtype; computed in float32.
    """

    is_normalization = True

    def __init__(self, gain: float = 1.0, epsilon: float = 1e-5, **kwargs):
        super().__init__(**kwargs)
        self.gain = gain
        self.epsilon = epsilon
        self._waits_for_data = False

    def build(self, input_shape):
        channels = input_shape[-1]
        self.gamma = self.add_weight(
            shape=(channels,),
            initializer=keras.initializers.Constant(self.gain),
            name="gamma",
            autocast=False,
        )
        self.beta = self.add_weight(
            shape=(channels,), initializer="zeros", name="beta", autocast=False
        )

    def call(self, inputs):
        inputs = tf.cast(inputs, tf.float32)
        if self._waits_for_data:
            self._initialize(inputs)
        return tf.cast(inputs * self.gamma.value + self.beta.value, self.compute_dtype)

    def _initialize(self, inputs):
        mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
        gamma = self.gain * tf.math.rsqrt(variance + self.epsilon)
        self.gamma.assign(gamma)
        self.beta.assign(-mean * gamma)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"gain": self.gain, "epsilon": self.epsilon}


def initialize_from_data(parts: Sequence[keras.Model], images) -> None:
    """Sets each `DataInit` layer from the inputs that it gets, in the order in which images pass;
    without any it does nothing.

    Args:
        parts: built models, each taking what the one before gives: encoder, projector, predictor.
        images: normalised float `[N, H, W, 3]`: one batch of views.

    Runs in training mode, so that batch normalisation in another part gives what it will give in
    training. To be called eagerly, under `tf.distribute` in cross-replica context.
    """
    found = [
        layer for part in parts for layer in part._flatten_layers() if isinstance(layer, DataInit)
    ]
    if not found:
        return
    try:
        for layer in found:
            layer._waits_for_data = True
        x = images
        for part in parts:
            x = part(x, training=True)
    finally:
        for layer in found:
            layer._waits_for_data = False
