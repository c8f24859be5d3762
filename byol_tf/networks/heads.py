"""Projector and predictor (BYOL paper, section 3.3)."""

import keras
from keras import layers

from byol_tf.networks.normalization import batch_norm


def mlp_head(features: int, hidden: int, outputs: int, name: str) -> keras.Model:
    """Linear with bias, BN, ReLU, Linear without bias and without BN, as deepmind-research `byol/utils/networks.py`.

    Args:
        features: width of the input.
        hidden: width between the two layers; 4096 in the papers.
        outputs: width of the output; 256 in the papers.
        name: `projector` or `predictor`.

    Returns:
        A functional model from `[N, features]` to `[N, outputs]`.
    """
    initializer = keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal")
    inputs = keras.Input((features,))
    x = layers.Dense(hidden, kernel_initializer=initializer, name=f"{name}_hidden")(inputs)
    x = layers.ReLU(name=f"{name}_relu")(batch_norm(f"{name}_bn")(x))
    x = layers.Dense(outputs, use_bias=False, kernel_initializer=initializer.clone(), name=f"{name}_output")(x)
    return keras.Model(inputs, x, name=name)
