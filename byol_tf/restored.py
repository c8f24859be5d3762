"""The encoder of a run's newest checkpoint."""

import sys

import keras

from byol_tf.build import encoder_of
from byol_tf.checkpoints import read_newest
from byol_tf.config import Config
from byol_tf.devices import set_precision
from byol_tf.networks.inference import inference_model
from byol_tf.run_folder import RunFolder


def restored_inference(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint, on the CPU in float32, without opening its images.

    Raises `FileNotFoundError` if the run has no whole checkpoint.
    """
    checkpoint, damaged = read_newest(folder.checkpoints)
    for damage in damaged:
        print(f"damaged checkpoint, not used: {damage}", file=sys.stderr)
    if checkpoint is None:
        raise FileNotFoundError(f"{folder.checkpoints}: expected a checkpoint; found none that is whole. Train first")
    set_precision("float32")
    encoder = encoder_of(config)
    prefix = "online/encoder/"
    arrays = [array for name, array in sorted(checkpoint.arrays.items()) if name.startswith(prefix)]
    for variable, array in zip(encoder.variables, arrays, strict=True):
        variable.assign(array)
    return inference_model(encoder, config.views.size, config.views.mean, config.views.std)
