"""Projector and predictor (BYOL paper, section 3.3)."""

import keras

from byol_tf.models.networks.blocks import check_normalization, dense, normalize


def mlp_head(
    features: int,
    hidden: int,
    outputs: int,
    name: str,
    layers: int = 2,
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
        hidden: width of the hidden layers; 4096 in the papers.
        outputs: width of the output; 256 in the papers.
        name: `projector` or `predictor`.
        layers: number of linear layers, the last one included; 2 in BYOL's heads, 3 in SimSiam's
            projector.
        normalization: one of `NORMALIZATIONS`.
        normalize_output: whether the output is normalised too, as SimSiam's projection is.
        output_bias: whether the last linear layer has a bias; not in BYOL's heads.
        output_scale: whether the normalisation of the output has a trainable scale.
        output_center: whether the normalisation of the output has a trainable offset.

    Returns:
        A functional model from `[N, features]` to `[N, outputs]`.

    Raises:
        ValueError: for another normalisation, fewer than one layer, or widths that the groups of
            `group` don't divide.
    """
    check_normalization(normalization)
    if layers < 1:
        raise ValueError(f"{name}: expected at least one layer; received {layers}")
    inputs = x = keras.Input((features,))
    for index in range(1, layers):
        suffix = "" if index == 1 else str(index)
        x = dense(x, hidden, f"{name}_hidden{suffix}", normalization)
        x = normalize(x, f"{name}_{{}}{suffix}", normalization)
        x = keras.layers.ReLU(name=f"{name}_relu{suffix}")(x)
    x = dense(x, outputs, f"{name}_output", normalization, use_bias=output_bias)
    if normalize_output:
        x = normalize(
            x, f"{name}_output_{{}}", normalization, scale=output_scale, center=output_center
        )
    return keras.Model(inputs, x, name=name)
