"""Projector and predictor (BYOL paper, section 3.3)."""

import keras

from byol_tf.errors import check_choice
from byol_tf.models.networks.blocks import NORMALIZATIONS, dense, normalize


def mlp_head(
    features: int,
    hidden_size: int,
    output_size: int,
    name: str,
    num_layers: int = 2,
    normalization: str = "batch",
    normalize_output: bool = False,
    output_bias: bool = False,
    output_scale: bool = True,
    output_center: bool = True,
) -> keras.Model:
    """Builds a multi-layer perceptron, as deepmind-research `byol/utils/networks.py`.

    Hidden layers are linear with bias, normalisation and ReLU; the last one is linear.

    Example:
        >>> projector = byol_tf.mlp_head(512, 4096, 256, "projector")
        >>> projector(np.zeros((8, 512), np.float32)).shape
        TensorShape([8, 256])

    Args:
        features: width of the input.
        hidden_size: width of the hidden layers; 4096 in the papers.
        output_size: width of the output; 256 in the papers.
        name: `projector` or `predictor`.
        num_layers: number of linear layers, the last one included; 2 in BYOL's heads, 3 in
            SimSiam's projector.
        normalization: one of `NORMALIZATIONS`.
        normalize_output: whether the output is normalised too, as SimSiam's projection is.
        output_bias: whether the last linear layer has a bias; not in BYOL's heads.
        output_scale: whether the normalisation of the output has a trainable scale.
        output_center: whether the normalisation of the output has a trainable offset.

    Returns:
        A functional model from `[N, features]` to `[N, output_size]`.

    Raises:
        ValueError: for another normalisation, fewer than one layer, or widths that the groups of
            `group` don't divide.
    """
    check_choice("normalization", normalization, NORMALIZATIONS)
    if num_layers < 1:
        raise ValueError(f"{name}: expected at least one layer; received {num_layers}")
    inputs = x = keras.Input((features,))
    for index in range(1, num_layers):
        suffix = "" if index == 1 else str(index)
        x = dense(x, hidden_size, f"{name}_hidden{suffix}", normalization)
        x = normalize(x, f"{name}_{{}}{suffix}", normalization)
        x = keras.layers.ReLU(name=f"{name}_relu{suffix}")(x)
    x = dense(x, output_size, f"{name}_output", normalization, use_bias=output_bias)
    if normalize_output:
        x = normalize(
            x, f"{name}_output_{{}}", normalization, scale=output_scale, center=output_center
        )
    return keras.Model(inputs, x, name=name)
