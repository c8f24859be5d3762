"""Scale and offset set by one batch, in place of batch normalisation.

Richemond et al., 2020, "BYOL works even without batch statistics", section 3.2
(https://arxiv.org/abs/2010.10241).
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from byol_tf import compat


@keras.saving.register_keras_serializable(package="byol_tf")
class DataInit(keras.layers.Layer):
    """`gamma x + beta` per channel; `initialize_from_data` sets both from a batch.

    Afterwards the layer gives on that batch what batch normalisation would give.

    Input and output have the shape `[..., C]` and the compute dtype; variables and computation are
    float32.

    Args:
        gain: `gamma` of the batch normalisation that the layer replaces: 1, or 0 for the last one
            of a residual block. Before it is initialised the layer has `gamma = gain` and
            `beta = 0`.
        epsilon: added to the variance.
        **kwargs: as for `keras.layers.Layer`.
    """

    is_normalization = True

    def __init__(self, gain: float = 1.0, epsilon: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gain = gain
        self.epsilon = epsilon
        self.initialize_on_call = False
        """Whether the next call sets the variables from its inputs."""

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Creates `gamma` and `beta`, float32 `[C]`."""
        channels = input_shape[-1]
        self.gamma = self.add_weight(
            shape=(channels,),
            initializer=keras.initializers.Constant(self.gain),
            name="gamma",
            dtype="float32",
            autocast=False,
        )
        self.beta = self.add_weight(
            shape=(channels,), initializer="zeros", name="beta", dtype="float32", autocast=False
        )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Scales and shifts `[..., C]`."""
        inputs = tf.cast(inputs, tf.float32)
        if self.initialize_on_call:
            self._initialize(inputs)
        return tf.cast(inputs * self.gamma.value + self.beta.value, self.compute_dtype)

    def _initialize(self, inputs: tf.Tensor) -> None:
        mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
        gamma = self.gain * tf.math.rsqrt(variance + self.epsilon)
        self.gamma.assign(gamma)
        self.beta.assign(-mean * gamma)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return super().get_config() | {"gain": self.gain, "epsilon": self.epsilon}


def initialize_from_data(networks: Sequence[keras.Model], images: tf.Tensor) -> None:
    """Sets each `DataInit` layer from its own inputs, layer after layer in one forward pass.

    Runs in training mode, so that batch normalisation in another network gives what it will give in
    training. Does nothing if there is no such layer. To be called eagerly; under `tf.distribute` in
    the cross-replica context.

    Args:
        networks: built models, each taking the output of the one before: encoder, projector,
            predictor.
        images: normalised float `[N, H, W, 3]`, one batch of views.
    """
    layers = [
        layer
        for network in networks
        for layer in compat.all_layers(network)
        if isinstance(layer, DataInit)
    ]
    if not layers:
        return
    try:
        for layer in layers:
            layer.initialize_on_call = True
        x = images
        for network in networks:
            x = network(x, training=True)
    finally:
        for layer in layers:
            layer.initialize_on_call = False
