"""Loads encoders: of a run's newest checkpoint, of an exported file, and as starting weights."""

import json
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from byol_tf.compat import build_without_values
from byol_tf.config.schema import Config, Views
from byol_tf.constants import PYTHON_MODEL
from byol_tf.devices import set_precision
from byol_tf.errors import (
    ConfigError,
    ProtocolError,
    RunFolderError,
    UnsafeModelError,
    describe_path,
)
from byol_tf.models.byol import BYOL
from byol_tf.models.external_encoders import as_encoder
from byol_tf.models.from_config import build_config_encoder
from byol_tf.models.inference import inference_model, takes_pixels
from byol_tf.models.safe_loading import (
    build_from_json,
    check_finite,
    check_keras_file,
    checked_saved_model,
    in_short,
)
from byol_tf.runs.checkpoints import read_newest
from byol_tf.runs.files import check_fits_memory, newest_version, write_atomically
from byol_tf.runs.folder import RunFolder

_ENCODER_PREFIX = "online/encoder/"  # of its variables in a checkpoint
_MAX_NAMED_LAYERS = 3
_HINT = (
    "In Python, byol_tf.export_encoder(byol_tf.inference_model(encoder, size, mean, std), folder) "
    "writes a file that states them"
)

logger = logging.getLogger(__name__)


def load_run_encoder(
    config: Config, folder: RunFolder, encoder: keras.Model | None = None
) -> keras.Model:
    """Loads the encoder of a run's newest valid checkpoint, in float32; opens no images.

    A module that the config names is never imported: the run's `encoder.json` is read instead.

    Args:
        config: of the run.
        folder: of the run. Each newer, damaged checkpoint is logged.
        encoder: the run's model, or one built as it was, which gets the weights. Needed where it
            has layers of one's own.

    Returns:
        The inference model, from uint8 images `[N, H, W, 3]` to representations `[N, d]`.

    Raises:
        ProtocolError: if the run has no valid checkpoint, it can't be read, its weights aren't
            finite, or it doesn't fit the config; or if the encoder can't be built without one's own
            code.
    """
    try:
        checkpoint, damaged = read_newest(folder.checkpoints)
    except (RunFolderError, OSError) as error:  # of another version, or a missing permission
        raise ProtocolError(
            f"--run {folder.root}: expected checkpoints that can be read; received {error}"
        ) from error
    for damage in damaged:
        logger.warning("damaged checkpoint, not used: %s", damage)
    if checkpoint is None:
        raise ProtocolError(
            f"{folder.checkpoints}: expected a valid checkpoint; found none. Train first"
        )
    set_precision("float32")
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
    try:
        check_finite(iter(arrays))
    except UnsafeModelError as error:
        raise ProtocolError(f"--run {folder.root}: {error}") from error
    return inference_model(encoder, *config.views.preparation)


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
        text = json.dumps({"error": in_short(error)})
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
        text = folder.architecture.read_text("utf-8")
        build_without_values(lambda: build_from_json(text))
    except (OSError, UnicodeError, UnsafeModelError) as error:
        raise ProtocolError(
            f"--run {folder.root}: its encoder, {config.encoder.name}, needs Python code of its "
            f"author, which no command but training runs: {folder.architecture.name}: {error}. Use "
            f"what the run exported, --encoder {folder.export / 'encoder'}; or, in Python, "
            "load_run_encoder(config, folder, encoder)"
        ) from error
    return lambda: build_from_json(text)


def _describe_shapes(shapes: list[tuple[int, ...]]) -> str:
    return f"{len(shapes)} arrays of {sum(map(math.prod, shapes)):,} numbers"


def load_encoder_file(path: Path) -> keras.Model:
    """Loads an exported encoder from a SavedModel folder or a `.keras` file.

    The file may come from an untrusted source: it is checked before it is loaded, and one that
    could do more than compute is rejected.

    Args:
        path: of the file or folder. Of an export folder its `encoder.keras` is loaded, of which
            only arrays and Keras' own layers are read; a SavedModel is a program. Of a folder of
            numbered SavedModels, as TensorFlow Serving has them, the highest is loaded, as Serving
            does.

    Returns:
        A model from uint8 images `[N, H, W, 3]` of any size to representations `[N, d]`.

    Raises:
        ProtocolError: if there is no such file, or it holds something else.
    """
    set_precision("float32")
    if os.path.isfile(path / "encoder.keras"):
        path = path / "encoder.keras"
    path = newest_version(path)
    if os.path.isfile(path / "saved_model.pb"):
        model = _load_saved_model(path)
    elif path.suffix == ".keras" and os.path.isfile(path):
        model = _load_keras_file(path)
    else:
        received = (
            "found no saved_model.pb in that folder" if os.path.isdir(path) else describe_path(path)
        )
        raise ProtocolError(
            f"--encoder {path}: expected the folder of a SavedModel or a .keras file; {received}"
        )
    single = len(model.inputs) == len(model.outputs) == 1
    if (
        not single
        or model.input_shape != (None, None, None, 3)
        or len(model.output_shape or ()) != 2
    ):
        raise ProtocolError(
            f"--encoder {path}: expected a model from images [N, H, W, 3] of any size to "
            f"representations [N, d]; received {model.input_shape} to {model.output_shape}. {_HINT}"
        )
    if not takes_pixels(model):
        raise ProtocolError(
            f"--encoder {path}: expected a model of uint8 images, or one that begins with a "
            f"Rescaling or Normalization of pixels from 0 to 255; received one of "
            f"{model.inputs[0].dtype} images, whose normalisation isn't known. {_HINT}"
        )
    # As in `inference_model`, which a file can't state: XLA has no antialiased resize. For this
    # model, and for others of its layers.
    model.jit_compile = False
    for layer in model.layers:
        layer.supports_jit = False
    return model


def _load_saved_model(path: Path) -> keras.Model:
    images = keras.Input((None, None, 3), dtype="uint8", name="images")
    try:
        check_fits_memory(file for file in path.rglob("*") if file.is_file())
        with checked_saved_model(path) as copy:
            # Keras' own layer around the endpoint that its `export` writes.
            endpoint = keras.layers.TFSMLayer(str(copy), call_endpoint="serve", trainable=False)
        model = keras.Model(images, endpoint(images))
        check_finite(map(np.asarray, model.get_weights()))
    # Of a broken one TensorFlow raises OpError, AttributeError, KeyError, RuntimeError, ...
    except Exception as error:
        raise ProtocolError(
            f'--encoder {path}: expected a SavedModel with an endpoint "serve" for uint8 '
            f"images; {in_short(error)}"
        ) from error
    return model


def _load_keras_file(path: Path) -> keras.Model:
    try:
        check_fits_memory([path])
        check_keras_file(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of any type, as above
        raise ProtocolError(
            f"--encoder {path}: expected a .keras file of a model; {in_short(error)}"
        ) from error


Weights = dict[str, list[np.ndarray]]
"""Name of a layer -> its arrays, in Keras' order."""


def starting_weights(path: str, encoder: keras.Model, views: Views) -> Weights:
    """Reads the weights that an encoder starts from, and checks that they are of the same network.

    The file may come from an untrusted source: it is checked before it is loaded, and one that
    could do more than compute is rejected.

    Args:
        path: an `encoder.keras`, or a folder that holds one.
        encoder: of the run, from normalised images to representations.
        views: of the run. Their mean and standard deviation have to be those of the file's
            encoder; sizes may differ.

    Returns:
        The weights of each layer that has some.

    Raises:
        ConfigError: if there is no such file, it holds something else, or a network with other
            layers or shapes.
    """
    file = Path(path) / "encoder.keras" if os.path.isdir(path) else Path(path)
    if file.suffix != ".keras" or not os.path.isfile(file):
        raise ConfigError(
            [
                "encoder.weights: expected an encoder.keras, or a folder that holds one; received "
                f'"{path}": {describe_path(file)}'
            ]
        )
    try:
        check_fits_memory([file])
        check_keras_file(file)
        inference = keras.models.load_model(file, compile=False, safe_mode=True)
        (file_encoder,) = [layer for layer in inference.layers if isinstance(layer, keras.Model)]
        normalise = inference.get_layer("normalise")
        scale = np.array(normalise.scale, np.float64)
        offset = np.array(normalise.offset, np.float64)
    except Exception as error:  # of another file Keras raises many types
        raise ConfigError(
            [
                f"encoder.weights: {file}: expected the encoder.keras of a run or a conversion; "
                f"{in_short(error)}"
            ]
        ) from error
    differences = _differences(file_encoder, encoder)
    std = 1.0 / (255.0 * scale)
    mean = -offset * std
    for name, in_file, in_config in (("mean", mean, views.mean), ("std", std, views.std)):
        if not np.allclose(in_file, in_config, rtol=1e-4, atol=1e-6):
            differences.append(
                f"its images are normalised with {name} {[round(float(x), 4) for x in in_file]}, "
                f"and views.{name} is {list(in_config)}"
            )
    if differences:
        raise ConfigError(
            [
                f"encoder.weights: {file}: expected an encoder as this config's: {difference}"
                for difference in differences
            ]
        )
    return {layer.name: layer.get_weights() for layer in file_encoder.layers if layer.weights}


def start_from(model: BYOL, weights: Weights) -> None:
    """Sets the weights of the encoder, and of the target encoder where there is one.

    Args:
        model: a BYOL model.
        weights: see `starting_weights`.
    """
    encoders = [model.encoder, *([model.target_encoder] if model.target == "ema" else [])]
    for encoder in encoders:
        for name, arrays in weights.items():
            encoder.get_layer(name).set_weights(arrays)


def _differences(file_encoder: keras.Model, encoder: keras.Model) -> list[str]:
    """Lists in which layers two networks differ.

    Layers are compared by name, as padding and pooling are layers without weights.
    """
    file_layers, own_layers = (
        {
            layer.name: layer
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer)
        }
        for model in (file_encoder, encoder)
    )
    lines = []
    for names, text in (
        (sorted(set(own_layers) - set(file_layers)), "it lacks"),
        (sorted(set(file_layers) - set(own_layers)), "it has besides"),
    ):
        if names:
            hidden = len(names) - _MAX_NAMED_LAYERS
            more = f" and {hidden} more" if hidden > 0 else ""
            lines.append(
                f"{text} {len(names)} layers: {', '.join(names[:_MAX_NAMED_LAYERS])}{more} "
                "(encoder.name, stem, normalization or padding differs)"
            )
    if lines:
        return lines
    shapes = [
        (name, _shapes(file_layers[name]), _shapes(own_layer))
        for name, own_layer in own_layers.items()
    ]
    differing = [(name, theirs, ours) for name, theirs, ours in shapes if theirs != ours]
    return [
        f"{len(differing)} layers have other shapes, as {name} with {theirs} for {ours}"
        for name, theirs, ours in differing[:1]
    ]


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
