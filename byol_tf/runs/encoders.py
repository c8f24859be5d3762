"""The encoder of a run's newest checkpoint."""

import sys
from pathlib import Path

import keras
import numpy as np

from byol_tf.config.schema import Config, Views
from byol_tf.devices import set_precision
from byol_tf.errors import ConfigError, ProtocolError, RunFolderError
from byol_tf.models.byol import BYOL
from byol_tf.models.from_config import build_config_encoder
from byol_tf.models.inference import inference_model
from byol_tf.models.safe_loading import check_finite, check_keras_file, check_saved_model, in_short
from byol_tf.runs.checkpoints import read_newest
from byol_tf.runs.files import newest_version
from byol_tf.runs.folder import RunFolder


def load_checkpoint_encoder(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint, on the CPU in float32, without opening its
    images.

    Raises `FileNotFoundError` if the run has no whole checkpoint.
    """
    checkpoint, damaged = read_newest(folder.checkpoints)
    for damage in damaged:
        print(f"damaged checkpoint, not used: {damage}", file=sys.stderr)
    if checkpoint is None:
        raise FileNotFoundError(
            f"{folder.checkpoints}: expected a checkpoint; found none that is whole. Train first"
        )
    set_precision("float32")
    encoder = build_config_encoder(config)
    prefix = "online/encoder/"
    arrays = [array for name, array in sorted(checkpoint.arrays.items()) if name.startswith(prefix)]
    for variable, array in zip(encoder.variables, arrays, strict=True):
        variable.assign(array)
    return inference_model(encoder, *config.views.preparation)


def load_run_encoder(config: Config, folder: RunFolder) -> keras.Model:
    """The inference model of a run's newest checkpoint. Raises `ProtocolError` if none can be read,
    or it doesn't fit the config."""
    try:
        inference = load_checkpoint_encoder(config, folder)
        check_finite(map(np.asarray, inference.get_weights()))
    except FileNotFoundError as error:
        raise ProtocolError(str(error)) from error
    except (
        RunFolderError,
        OSError,
    ) as error:  # another version wrote it, or there is no right to read it
        raise ProtocolError(
            f"--run {folder.root}: expected checkpoints that can be read; received {error}"
        ) from error
    except (
        ValueError
    ) as error:  # arrays of other shapes than the config's network has, or too few of them
        raise ProtocolError(
            f"--run {folder.root}: expected weights of the encoder that config.json describes; "
            f"{in_short(error)}"
        ) from error
    return inference


def load_encoder_file(path: Path) -> keras.Model:
    """A model from uint8 images `[N, H, W, 3]` of any size to representations `[N, d]`, from a
    SavedModel folder or a `.keras` file.

    Of a folder of numbered versions, as TensorFlow Serving has them, the highest is taken, as
    Serving does.

    The file may come from anywhere: it is looked through before it is loaded, and what could do
    more than compute is refused.

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
            outputs = keras.layers.TFSMLayer(str(path), call_endpoint="serve", trainable=False)(
                images
            )
            model = keras.Model(images, outputs)
            check_finite(map(np.asarray, model.get_weights()))
        # on a broken one TensorFlow raises OpError, AttributeError, KeyError, RuntimeError, ...
        except Exception as error:
            raise ProtocolError(
                f'--encoder {path}: expected a SavedModel with an endpoint "serve" for uint8 '
                f"images; {in_short(error)}"
            ) from error
    elif path.suffix == ".keras" and path.is_file():
        try:
            check_keras_file(path)
            model = keras.models.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # as above
            raise ProtocolError(
                f"--encoder {path}: expected a .keras file of a model; {in_short(error)}"
            ) from error
    else:
        what = (
            "found no saved_model.pb in that folder"
            if path.is_dir()
            else "it is neither"
            if path.exists()
            else "there is nothing there"
        )
        raise ProtocolError(
            f"--encoder {path}: expected the folder of a SavedModel or a .keras file; {what}"
        )
    shapes = (
        (model.input_shape, model.output_shape)
        if len(model.inputs) == len(model.outputs) == 1
        else (None, None)
    )
    if shapes[0] != (None, None, None, 3) or len(shapes[1] or ()) != 2:
        raise ProtocolError(
            f"--encoder {path}: expected a model from images [N, H, W, 3] of any size to "
            "representations [N, d]; "
            f"received {model.input_shape} to {model.output_shape}"
        )
    # As in `inference_model`, which a file can't say: XLA has no antialiased resize. For this
    # model, and for others of its layers.
    model.jit_compile = False
    for layer in model.layers:
        layer.supports_jit = False
    return model


Weights = dict[str, list[np.ndarray]]
"""Name of a layer -> its arrays, in Keras' order."""


def starting_weights(path: str, encoder: keras.Model, views: Views) -> Weights:
    """The weights for an encoder from a file, once the file's network is found to be the same.

    The file may come from anywhere: it is looked through before it is loaded, and what could do
    more than compute is refused.

    Args:
        path: an `encoder.keras`, or a folder that holds one.
        encoder: of the run, from normalised images to representations.
        views: of the run: the file's encoder has to be used to the same mean and deviation. Sizes
            may differ.

    Raises:
        ConfigError: if there is no such file, it holds something else, or a network with other
            layers or shapes.
    """
    file = Path(path) / "encoder.keras" if Path(path).is_dir() else Path(path)
    if file.suffix != ".keras" or not file.is_file():
        raise ConfigError(
            [
                "encoder.weights: expected an encoder.keras, or a folder that holds one; received "
                f'"{path}"'
            ]
        )
    try:
        check_keras_file(file)
        inference = keras.models.load_model(file, compile=False, safe_mode=True)
        (given,) = [layer for layer in inference.layers if isinstance(layer, keras.Model)]
        normalise = inference.get_layer("normalise")
        scale, offset = (
            np.array(normalise.scale, np.float64),
            np.array(normalise.offset, np.float64),
        )
    except Exception as error:  # of what isn't such a file, Keras raises many kinds
        raise ConfigError(
            [
                f"encoder.weights: {file}: expected the encoder.keras of a run or a conversion; "
                f"{in_short(error)}"
            ]
        ) from error
    lines = _differences(given, encoder)
    std = 1.0 / (255.0 * scale)
    mean = -offset * std
    for name, theirs, ours in (("mean", mean, views.mean), ("std", std, views.std)):
        if not np.allclose(theirs, ours, rtol=1e-4, atol=1e-6):
            lines.append(
                f"its images are normalised with {name} {[round(float(x), 4) for x in theirs]}, "
                f"and views.{name} is {list(ours)}"
            )
    if lines:
        raise ConfigError(
            [
                f"encoder.weights: {file}: expected an encoder as this config's: {line}"
                for line in lines
            ]
        )
    return {layer.name: layer.get_weights() for layer in given.layers if layer.weights}


def start_from(model: BYOL, weights: Weights) -> None:
    """Sets the encoder's weights, and its target's where there is one: both networks start
    alike."""
    encoders = [model.encoder, *([model.target_encoder] if model.target == "ema" else [])]
    for encoder in encoders:
        for name, arrays in weights.items():
            encoder.get_layer(name).set_weights(arrays)


def _differences(given: keras.Model, encoder: keras.Model) -> list[str]:
    """What the file's network has otherwise. Layers are compared by name: padding and pooling have
    layers, and no weights."""
    theirs, ours = (
        {
            layer.name: layer
            for layer in model.layers
            if not isinstance(layer, keras.layers.InputLayer)
        }
        for model in (given, encoder)
    )
    lines = []
    for names, text in (
        (sorted(set(ours) - set(theirs)), "it lacks"),
        (sorted(set(theirs) - set(ours)), "it has besides"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(
                f"{text} {len(names)} layers: {', '.join(names[:3])}{more} (encoder.name, stem, "
                "normalization or padding differs)"
            )
    if not lines:
        shapes = [
            (
                name,
                [tuple(w.shape) for w in theirs[name].weights],
                [tuple(w.shape) for w in ours[name].weights],
            )
            for name in ours
        ]
        wrong = [(name, its, mine) for name, its, mine in shapes if its != mine]
        lines += [
            f"{len(wrong)} layers have other shapes, as {name} with {its} for {mine}"
            for name, its, mine in wrong[:1]
        ]
    return lines
