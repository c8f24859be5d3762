"""The encoder that a config names."""

import keras

from byol_tf.networks.convnet import convnet
from byol_tf.networks.resnet import BLOCKS, resnet


def build_encoder(name: str, image_size: int, width: float = 1.0, stem: str = "7x7") -> keras.Model:
    """Builds an encoder by name: `convnet` (which has no `stem`) or a key of `resnet.BLOCKS`.

    Returns a model from normalised float images `[N, image_size, image_size, 3]` to representations `[N, d]`. Raises `ValueError` for
    another name.
    """
    if name == "convnet":
        return convnet(image_size, width)
    if name in BLOCKS:
        return resnet(name, image_size, width, stem)
    raise ValueError(f"encoder: expected one of {', '.join(('convnet', *BLOCKS))}; received {name!r}")
