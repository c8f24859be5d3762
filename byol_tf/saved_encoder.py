"""The encoder as files: a SavedModel for any TensorFlow program and a `.keras` file for any Keras one."""

import contextlib
import io
import shutil
from pathlib import Path

import keras
import tensorflow as tf

from byol_tf.config import Config
from byol_tf.networks.inference import inference_model, plain_encoder


def export_encoder(inference: keras.Model, folder: Path, config: Config) -> None:
    """Writes `encoder/` (SavedModel) and `encoder.keras` into a folder, replacing what is there once both are whole.

    Args:
        inference: see `networks/inference.py`.
        folder: made if missing.
        config: for size, mean and std.

    Both take images `[N, H, W, 3]` of any size with values 0 to 255 and give float32 representations `[N, d]`; resize, crop and
    normalisation are inside. The SavedModel takes uint8. Both hold Keras' own layers in float32, so that neither needs byol_tf.
    """
    views = config.views
    encoder = next(layer for layer in inference.layers if isinstance(layer, keras.Model))
    plain = inference_model(plain_encoder(encoder), views.size, views.mean, views.std)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".encoder.part"
    shutil.rmtree(beside, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the signature, also when told not to
        plain.export(
            beside, format="tf_saved_model", verbose=False, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")]
        )
    plain.save(folder / ".encoder.part.keras")
    shutil.rmtree(folder / "encoder", ignore_errors=True)
    beside.rename(folder / "encoder")
    (folder / ".encoder.part.keras").replace(folder / "encoder.keras")
