"""The encoder that is judged: a run's newest one, a SavedModel, or a `.keras` file."""

from pathlib import Path

import keras

from byol_tf.config import Config
from byol_tf.devices import set_precision
from byol_tf.evaluation.finetune import parts_of
from byol_tf.evaluation.labelled import ProtocolError
from byol_tf.experiment import restored_inference
from byol_tf.networks.inference import inference_model, plain_encoder
from byol_tf.run_folder import RunFolder


def run_encoder(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint. Raises `ProtocolError` without one."""
    try:
        return restored_inference(config, folder)
    except FileNotFoundError as error:
        raise ProtocolError(str(error)) from error


def file_encoder(path: Path) -> keras.Model:
    """A model from uint8 images `[N, H, W, 3]` of any size to representations `[N, d]`, from a SavedModel folder or a `.keras` file.

    Raises:
        ProtocolError: if there is no such file, or it holds something else.
    """
    set_precision("float32")
    if path.is_dir() and (path / "saved_model.pb").is_file():
        images = keras.Input((None, None, 3), dtype="uint8", name="images")
        try:
            # Keras' own layer around the endpoint that its `export` writes
            outputs = keras.layers.TFSMLayer(str(path), call_endpoint="serve", trainable=False)(images)
        except (OSError, ValueError, TypeError) as error:
            raise ProtocolError(f'--encoder {path}: expected a SavedModel with an endpoint "serve" for uint8 images; {error}') from error
        model = keras.Model(images, outputs)
    elif path.suffix == ".keras" and path.is_file():
        try:
            model = keras.models.load_model(path, compile=False)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ProtocolError(f"--encoder {path}: expected a .keras file of a model; {error}") from error
    else:
        what = "found no saved_model.pb in that folder" if path.is_dir() else "it is neither" if path.exists() else "there is nothing there"
        raise ProtocolError(f"--encoder {path}: expected the folder of a SavedModel or a .keras file; {what}")
    shapes = (model.input_shape, model.output_shape) if len(model.inputs) == len(model.outputs) == 1 else (None, None)
    if shapes[0] != (None, None, None, 3) or len(shapes[1]) != 2:
        raise ProtocolError(
            f"--encoder {path}: expected a model from images [N, H, W, 3] of any size to representations [N, d]; "
            f"received {model.input_shape} to {model.output_shape}"
        )
    return model


def exported_form(inference: keras.Model, config: Config) -> keras.Model:
    """A run's inference model of Keras' own layers, as its exports have it: the same features to the last bit, so the same figures."""
    views = config.views
    return inference_model(plain_encoder(parts_of(inference)[2]), views.size, views.mean, views.std)


def crop_size(inference: keras.Model, config: Config) -> int:
    """Side of the crops that an encoder is judged on: of its own input where it says so, else the config's views."""
    try:
        return parts_of(inference)[2].input_shape[1]
    except ProtocolError:
        return config.views.size
