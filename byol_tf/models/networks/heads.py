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
) -> keras.Model:
    """Linear layers: hidden ones with bias, normalisation and ReLU, then one without bias, as
    deepmind-research `byol/utils/networks.py`.

    Args:
        features: width of the input.
        hidden: width of the hidden layers; 4096 in the papers.
        outputs: width of the output; 256 in the papers.
        name: `projector` or `predictor`.
        layers: linear layers, the last one included; 2 in BYOL's heads, 3 in SimSiam's projector.
        normalization: a word of `parts.NORMALIZATIONS`.
        normalize_output: whether the output is normalised too, as SimSiam's projection is.

    Returns:
        A functional model from `[N, features]` to `[N, outputs]`.

    Raises:
        ValueError: for another word, fewer than one layer, or widths that don't divide into the
            groups of `group`.
    """
    check_normalization(normalization)
    if layers < 1:
        raise ValueError(f"{name}: expected at least one layer; received {layers}")
    inputs = x = keras.Input((features,))
    for number in ["", *range(2, layers)][: layers - 1]:
        x = dense(x, hidden, f"{name}_hidden{number}", normalization)
        x = keras.layers.ReLU(name=f"{name}_relu{number}")(
            normalize(x, f"{name}_{{}}{number}", normalization)
        )
    x = dense(x, outputs, f"{name}_output", normalization, use_bias=False)
    if normalize_output:
        x = normalize(x, f"{name}_output_{{}}", normalization)
    return keras.Model(inputs, x, name=name)
