"""The encoder that is judged: a run's newest one, a SavedModel, or a `.keras` file."""

from pathlib import Path

import keras
import numpy as np

from byol_tf.config import Config
from byol_tf.devices import set_precision
from byol_tf.evaluation.finetune import parts_of
from byol_tf.evaluation.labelled import ProtocolError
from byol_tf.model_files import check_finite, check_keras_file, check_saved_model, in_short
from byol_tf.restored import restored_inference
from byol_tf.run_folder import RunFolder, RunFolderError
from byol_tf.served_versions import newest_version


def run_encoder(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint. Raises `ProtocolError` if none can be read, or it doesn't fit the config."""
    try:
        inference = restored_inference(config, folder)
        check_finite(map(np.asarray, inference.get_weights()))
    except FileNotFoundError as error:
        raise ProtocolError(str(error)) from error
    except (RunFolderError, OSError) as error:  # another version wrote it, or there is no right to read it
        raise ProtocolError(f"--run {folder.root}: expected checkpoints that can be read; received {error}") from error
    except ValueError as error:  # arrays of other shapes than the config's network has, or too few of them
        raise ProtocolError(
            f"--run {folder.root}: expected weights of the encoder that config.json describes; {in_short(error)}"
        ) from error
    return inference


def file_encoder(path: Path) -> keras.Model:
    """A model from uint8 images `[N, H, W, 3]` of any size to representations `[N, d]`, from a SavedModel folder or a `.keras` file.

    Of a folder of numbered versions, as TensorFlow Serving has them, the highest is taken, as Serving does.

    The file may come from anywhere: it is looked through before it is loaded, and what could do more than compute is refused.

    Raises:
        ProtocolError: if there is no such file, or it holds something else.
    """
    set_precision("float32")
    path = newest_version(path)
    if path.is_dir() and (path / "saved_model.pb").is_file():
        images = keras.Input((None, None, 3), dtype="uint8", name="images")
        try:
            check_saved_model(path)
            # Keras' own layer around the endpoint that its `export` writes
            outputs = keras.layers.TFSMLayer(str(path), call_endpoint="serve", trainable=False)(images)
            model = keras.Model(images, outputs)
            check_finite(map(np.asarray, model.get_weights()))
        except Exception as error:  # on a broken one TensorFlow raises OpError, AttributeError, KeyError, RuntimeError, ...
            raise ProtocolError(
                f'--encoder {path}: expected a SavedModel with an endpoint "serve" for uint8 images; {in_short(error)}'
            ) from error
    elif path.suffix == ".keras" and path.is_file():
        try:
            check_keras_file(path)
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # as above
            raise ProtocolError(f"--encoder {path}: expected a .keras file of a model; {in_short(error)}") from error
    else:
        what = "found no saved_model.pb in that folder" if path.is_dir() else "it is neither" if path.exists() else "there is nothing there"
        raise ProtocolError(f"--encoder {path}: expected the folder of a SavedModel or a .keras file; {what}")
    shapes = (model.input_shape, model.output_shape) if len(model.inputs) == len(model.outputs) == 1 else (None, None)
    if shapes[0] != (None, None, None, 3) or len(shapes[1] or ()) != 2:
        raise ProtocolError(
            f"--encoder {path}: expected a model from images [N, H, W, 3] of any size to representations [N, d]; "
            f"received {model.input_shape} to {model.output_shape}"
        )
    # As in `inference_model`, which a file can't say: XLA has no antialiased resize. For this model, and for others of its layers.
    model.jit_compile = False
    for layer in model.layers:
        layer.supports_jit = False
    return model


def crop_size(inference: keras.Model, config: Config) -> int:
    """Side of the crops that an encoder is judged on: of its own input where it says so, else the config's views."""
    try:
        return parts_of(inference)[2].input_shape[1]
    except ProtocolError:
        return config.views.size
