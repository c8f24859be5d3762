"""The encoder that a config names."""

import keras

from byol_tf.networks.convnet import convnet
from byol_tf.networks.resnet import BLOCKS, resnet


def build_encoder(
    name: str, image_size: int, width: float = 1.0, stem: str = "7x7", normalization: str = "batch", padding: str = "same"
) -> keras.Model:
    """Builds an encoder by name: `convnet` (which has no `stem` and no `padding`) or a key of `resnet.BLOCKS`.

    `normalization` is a word of `parts.NORMALIZATIONS`, `padding` one of `parts.PADDINGS`. Returns a model from normalised float images
    `[N, image_size, image_size, 3]` to representations `[N, d]`. Raises `ValueError` for another name or word, and for channels that don't
    divide into the groups of `group`.
    """
    if name == "convnet":
        return convnet(image_size, width, normalization)
    if name in BLOCKS:
        return resnet(name, image_size, width, stem, normalization, padding)
    raise ValueError(f"encoder: expected one of {', '.join(('convnet', *BLOCKS))}; received {name!r}")
