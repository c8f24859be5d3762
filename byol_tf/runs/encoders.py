"""Loads encoders: of a run's newest checkpoint, and of an exported file."""

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from byol_tf.compat import build_without_values
from byol_tf.config.schema import Config
from byol_tf.constants import PYTHON_MODEL
from byol_tf.errors import (
    ProtocolError,
    RunFolderError,
    UnsafeModelError,
    describe_path,
    one_line,
)
from byol_tf.models.construction import dtype_policy, refresh_constants
from byol_tf.models.external_encoders import as_encoder
from byol_tf.models.from_config import build_config_encoder, config_inference_model
from byol_tf.models.inference import takes_pixels
from byol_tf.models.safe_loading import (
    build_from_json,
    check_finite,
    check_keras_file,
    checked_saved_model,
)
from byol_tf.runs.best_epoch import scores
from byol_tf.runs.checkpoints import read_newest
from byol_tf.runs.files import (
    check_fits_memory,
    newest_version,
    read_text,
    write_atomically,
)
from byol_tf.runs.folder import RunFolder, read_history
from pipelines.registry import MAX_CHANNELS

_ENCODER_PREFIX = "online/encoder/"  # of its variables in a checkpoint
_HINT = (
    "In Python, byol_tf.export_encoder(byol_tf.inference_model(encoder, size, mean, std), folder) "
    "writes a file that states them"
)

logger = logging.getLogger(__name__)


@dtype_policy("float32")
def load_run_encoder(
    config: Config, folder: RunFolder, encoder: keras.Model | None = None
) -> keras.Model:
    """Loads the encoder of a run's newest valid checkpoint, in float32; opens no images.

    Of a run whose config says `run.export` "best" it is that of the best one so far.

    A module that the config names is never imported: the run's `encoder.json` is read instead.

    Args:
        config: of the run.
        folder: of the run. Each newer, damaged checkpoint is logged.
        encoder: the run's model, or one built as it was, which gets the weights. Needed where it
            has layers of one's own.

    Returns:
        The inference model, from images `[N, H, W, channels]`, uint8 or uint16, to representations
        `[N, d]`.

    Raises:
        ProtocolError: if the run has no valid checkpoint, it can't be read, its weights aren't
            finite, or it doesn't fit the config; or if the encoder can't be built without one's own
            code.
    """
    try:
        best = config.run.export == "best" and folder.history.exists()
        rows = read_history(folder.history) if best else []
        checkpoint, damaged = read_newest(folder.checkpoints, scores(rows, config.monitor.metric))
    except (RunFolderError, OSError, ValueError) as error:  # of another version, or no permission
        raise ProtocolError(
            f"--run {folder.root}: expected history and checkpoints that can be read; received "
            f"{error}"
        ) from error
    for damage in damaged:
        logger.warning("damaged checkpoint, not used: %s", damage)
    if checkpoint is None:
        raise ProtocolError(
            f"{folder.checkpoints}: expected a valid checkpoint; found none. Train first"
        )
    arrays = [
        array
        for name, array in sorted(checkpoint.arrays.items())
        if name.startswith(_ENCODER_PREFIX)
    ]
    build = _builder(config, folder, encoder)
    # Before the encoder takes memory: config.json may ask for any width.
    outline = build_without_values(build)
    expected, received = (
        [tuple(each.shape) for each in group] for group in (outline.variables, arrays)
    )
    if expected != received:
        raise ProtocolError(
            f"--run {folder.root}: expected weights of the encoder that config.json describes, "
            f"{_describe_shapes(expected)}; received {_describe_shapes(received)}"
        )
    encoder = build()
    for variable, array in zip(encoder.variables, arrays, strict=True):
        variable.assign(array)
    refresh_constants(encoder)
    try:
        check_finite(iter(arrays))
    except UnsafeModelError as error:
        raise ProtocolError(f"--run {folder.root}: {error}") from error
    return config_inference_model(encoder, config)


def is_built_by_name(config: Config) -> bool:
    """Returns whether a run's encoder can be built from its config without the user's own code."""
    return config.encoder.name != PYTHON_MODEL and ":" not in config.encoder.name


def save_architecture(config: Config, folder: RunFolder, encoder: keras.Model) -> None:
    """Writes the layers of an encoder that its config alone doesn't describe, in float32.

    Raises:
        RunFolderError: if the file can't be written.
    """
    if is_built_by_name(config):
        return
    try:
        text = encoder.to_json()
    except (NotImplementedError, TypeError, ValueError) as error:  # a layer has no get_config
        text = json.dumps({"error": one_line(error)})
    for policy in ("mixed_bfloat16", "mixed_float16"):
        text = text.replace(f'"{policy}"', '"float32"')
    try:
        write_atomically(folder.architecture, text)
    except OSError as error:
        raise RunFolderError(
            f"{folder.architecture}: expected a file that can be written; received {error}"
        ) from error


def _builder(
    config: Config, folder: RunFolder, encoder: keras.Model | None
) -> Callable[[], keras.Model]:
    """Returns a function that returns a run's encoder, with any weights."""
    if encoder is not None:
        own = as_encoder(encoder, *config.views.preparation)
        return lambda: own
    if is_built_by_name(config):
        return lambda: build_config_encoder(config)
    try:
        check_fits_memory([folder.architecture])
        text = read_text(folder.architecture)
        build_without_values(lambda: build_from_json(text))
    except (OSError, ValueError, UnsafeModelError) as error:
        raise ProtocolError(
            f"--run {folder.root}: its encoder, {config.encoder.name}, needs Python code of its "
            f"author, which no command but training runs: {folder.architecture.name}: {error}. Use "
            f"what the run exported, --encoder {folder.export / 'encoder'}; or, in Python, "
            "load_run_encoder(config, folder, encoder)"
        ) from error
    return lambda: build_from_json(text)


def _describe_shapes(shapes: list[tuple[int, ...]]) -> str:
    return f"{len(shapes)} arrays of {sum(map(math.prod, shapes)):,} numbers"


@dtype_policy("float32")
def load_encoder_file(path: Path, option: str = "--encoder") -> keras.Model:
    """Loads an exported encoder from a SavedModel folder or a `.keras` file.

    The file may come from an untrusted source: it is checked before it is loaded, and one that
    could do more than compute is rejected.

    Args:
        path: of the file or folder. Of an export folder its `encoder.keras` is loaded, of which
            only arrays and Keras' own layers are read; a SavedModel is a program. Of a folder of
            numbered SavedModels, as TensorFlow Serving has them, the highest is loaded, as Serving
            does.
        option: the option or key that named it, with which messages begin.

    Returns:
        A model from images `[N, H, W, channels]` of any size, uint8 or uint16, to representations
        `[N, d]`.

    Raises:
        ProtocolError: if there is no such file, or it holds something else.
    """
    if os.path.isfile(path / "encoder.keras"):
        path = path / "encoder.keras"
    path = newest_version(path)
    if os.path.isfile(path / "saved_model.pb"):
        model = _load_saved_model(path, option)
    elif path.suffix == ".keras" and os.path.isfile(path):
        model = _load_keras_file(path, option)
    else:
        received = (
            "found no saved_model.pb in that folder" if os.path.isdir(path) else describe_path(path)
        )
        raise ProtocolError(
            f"{option} {path}: expected the folder of a SavedModel or a .keras file; {received}"
        )
    single = len(model.inputs) == len(model.outputs) == 1
    if (
        not single
        or model.input_shape[:3] != (None, None, None)
        or model.input_shape[3] not in range(1, MAX_CHANNELS + 1)
        or len(model.output_shape or ()) != 2
    ):
        raise ProtocolError(
            f"{option} {path}: expected a model from images [N, H, W, channels] of any size to "
            f"representations [N, d]; received {model.input_shape} to {model.output_shape}. {_HINT}"
        )
    if not takes_pixels(model):
        raise ProtocolError(
            f"{option} {path}: expected a model of uint8 or uint16 images, or one that begins with "
            "a Rescaling or Normalization of pixels from 0 to 255; received one of "
            f"{model.inputs[0].dtype} images, whose normalisation isn't known. {_HINT}"
        )
    # As in `inference_model`, which a file can't state: XLA has no antialiased resize. For this
    # model, and for others of its layers.
    model.jit_compile = False
    for layer in model.layers:
        layer.supports_jit = False
    return model


def _load_saved_model(path: Path, option: str) -> keras.Model:
    try:
        check_fits_memory(file for file in path.rglob("*") if file.is_file())
        with checked_saved_model(path) as copy:
            # Keras' own layer around the endpoint that its `export` writes.
            endpoint = keras.layers.TFSMLayer(str(copy), call_endpoint="serve", trainable=False)
            images = _saved_input(copy)
        model = keras.Model(images, endpoint(images))
        check_finite(map(np.asarray, model.get_weights()))
    # Of a broken one TensorFlow raises OpError, AttributeError, KeyError, RuntimeError, ...
    except Exception as error:
        raise ProtocolError(
            f'{option} {path}: expected a SavedModel with an endpoint "serve" for uint8 '
            f"images; {one_line(error)}"
        ) from error
    return model


def _saved_input(folder: Path) -> keras.KerasTensor:
    """Returns an input as the endpoint of a SavedModel takes it: of its type and channels."""
    content = saved_model_pb2.SavedModel()
    content.ParseFromString((folder / "saved_model.pb").read_bytes())
    signatures = content.meta_graphs[0].signature_def
    if "serve" not in signatures:
        return keras.Input((None, None, 3), dtype="uint8", name="images")
    (images,) = signatures["serve"].inputs.values()
    shape = tf.TensorShape(images.tensor_shape)
    return keras.Input(shape[1:], dtype=tf.as_dtype(images.dtype).name, name="images")


def _load_keras_file(path: Path, option: str) -> keras.Model:
    try:
        check_fits_memory([path])
        check_keras_file(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of any type, as above
        raise ProtocolError(
            f"{option} {path}: expected a .keras file of a model; {one_line(error)}"
        ) from error
