"""The encoder as files: a SavedModel for any TensorFlow program and a `.keras` file for any Keras one."""

import shutil
from pathlib import Path

import keras

from byol_tf.config import Config
from byol_tf.exporting.saved_model import write_saved_model
from byol_tf.exporting.usage import write_usage
from byol_tf.networks.inference import inference_model, plain_encoder


def exported_form(inference: keras.Model, config: Config) -> keras.Model:
    """An inference model of Keras' own layers in float32, as exports have it: a run's own features to the last bit.

    Args:
        inference: see `networks/inference.py`.
        config: for size, mean and deviation.
    """
    encoder = next(layer for layer in inference.layers if isinstance(layer, keras.Model))
    return inference_model(plain_encoder(encoder), config.views.size, config.views.mean, config.views.std)


def export_encoder(inference: keras.Model, folder: Path, config: Config) -> None:
    """Writes `encoder/1/` (SavedModel), `encoder.keras` and `USAGE.md` into a folder, replacing what is there once both are whole.

    Args:
        inference: see `networks/inference.py`.
        folder: made if missing.
        config: for size, mean and std.

    Both take images `[N, H, W, 3]` of any size with values 0 to 255 and give float32 representations `[N, d]`; resize, crop and
    normalisation are inside. The SavedModel takes uint8, or files' bytes. Both hold Keras' own layers in float32, so that neither needs
    byol_tf. Other formats that are in the folder are of an earlier encoder, and removed.
    """
    plain = exported_form(inference, config)
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".encoder.part"
    shutil.rmtree(beside, ignore_errors=True)
    write_saved_model(plain, beside)
    plain.save(folder / ".encoder.part.keras")
    for path in (*folder.glob("encoder*.tflite"), folder / "encoder.onnx", folder / "proof.json"):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder / "encoder", ignore_errors=True)
    beside.rename(folder / "encoder")
    (folder / ".encoder.part.keras").replace(folder / "encoder.keras")
    write_usage(folder, config.views.size)
