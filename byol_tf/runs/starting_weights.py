"""The weights that a run's encoder starts from: `encoder.weights` of a config."""

import os
import re
import warnings
from collections import Counter
from pathlib import Path

import keras
import numpy as np

from byol_tf import compat
from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.constants import APPLICATIONS, IMAGENET
from byol_tf.errors import ConfigError, ProtocolError, describe_path, one_line
from byol_tf.models.byol import BYOL
from byol_tf.models.construction import copy_network, set_weights
from byol_tf.models.inference import plain_encoder, split_inference_model
from byol_tf.models.safe_loading import check_keras_file, check_weights_file
from byol_tf.runs.encoders import load_run_encoder
from byol_tf.runs.files import check_fits_memory
from byol_tf.runs.folder import RunFolder
from pipelines.sources.pixels import white

_MAX_NAMED_LAYERS = 3
_IMAGENET_SHAPE = (224, 224, 3)
_IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of the images that Keras' weights are for; without it Keras warns. No weight's shape depends on
it."""
_PYTORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".tar", ".safetensors")

Weights = dict[str, list[np.ndarray]]
"""Name of a layer -> its arrays, in Keras' order."""


def starting_weights(path: str, encoder: keras.Model, config: Config) -> Weights:
    """Reads the weights that an encoder starts from, and checks that they are of the same network.

    A file may come from an untrusted source: it is checked before it is loaded, and one that could
    do more than compute is rejected.

    Args:
        path: an `encoder.keras`, or a folder that holds one; a run folder, of which the newest
            checkpoint's online encoder is read; a `.weights.h5` of the encoder; or `imagenet`, the
            weights of Keras' own for an encoder of `keras.applications`.
        encoder: of the run, from normalised images to representations.
        config: of the run. Mean and standard deviation of its views have to be those of the file's
            or run's encoder; sizes may differ. A `.weights.h5` doesn't state them.

    Returns:
        The weights of each layer that has some.

    Raises:
        ConfigError: if there is no such file, it holds something else, or a network with other
            layers or shapes; or if Keras can't download its weights.
    """
    if path == IMAGENET:
        return _imagenet_weights(encoder, config)
    place = Path(path)
    if path.endswith(".weights.h5") and os.path.isfile(place):
        return _weights_file(place, encoder)
    file = place / "encoder.keras" if os.path.isdir(place) else place
    if file.suffix == ".keras" and os.path.isfile(file):
        inference = _load_keras_file(file)
    elif os.path.isdir(place / "checkpoints"):
        file, inference = place, _load_run(place)
    else:
        hint = (
            ". python -m byol_tf.convert pytorch makes one of it"
            if file.suffix in _PYTORCH_SUFFIXES
            else ""
        )
        raise ConfigError(
            "encoder.weights: expected an encoder.keras, or a folder that holds one, a run "
            f'folder, a .weights.h5, or "{IMAGENET}"; received "{path}": '
            f"{describe_path(file)}{hint}"
        )
    (file_encoder,) = [layer for layer in inference.layers if isinstance(layer, keras.Model)]
    normalise, (images,) = inference.get_layer("normalise"), inference.inputs
    std = 1.0 / (white(images.dtype) * np.array(normalise.scale, np.float64))
    mean = -np.array(normalise.offset, np.float64) * std
    file_layers, own_layers = _layers(file_encoder), _layers(encoder)
    differences = _differences(file_layers, own_layers)
    _, own_mean, own_std = config.views.preparation
    for name, in_file, in_config in (("mean", mean, own_mean), ("std", std, own_std)):
        if len(in_file) != len(in_config) or not np.allclose(
            in_file, in_config, rtol=1e-4, atol=1e-6
        ):
            differences.append(
                f"its images are normalised with {name} {[round(float(x), 4) for x in in_file]}, "
                f"and views.{name} is {list(in_config)}"
            )
    if differences:
        raise ConfigError(
            *[
                f"encoder.weights: {file}: expected an encoder as this config's: {difference}"
                for difference in differences
            ]
        )
    return {
        own_layers[key].name: layer.get_weights()
        for key, layer in file_layers.items()
        if layer.weights
    }


def _weights_by_layer(encoder: keras.Model) -> Weights:
    return {layer.name: layer.get_weights() for layer in encoder.layers if layer.weights}


def _load_keras_file(file: Path) -> keras.Model:
    """Loads the inference model of a run or a conversion."""
    try:
        check_fits_memory([file])
        check_keras_file(file)
        inference = keras.models.load_model(file, compile=False, safe_mode=True)
        split_inference_model(inference)
    except Exception as error:  # of another file Keras raises many types
        raise ConfigError(
            f"encoder.weights: {file}: expected the encoder.keras of a run or a conversion; "
            f"{one_line(error)}"
        ) from error
    return inference


def _load_run(folder: Path) -> keras.Model:
    """Loads the inference model of a run's newest checkpoint."""
    run = RunFolder(folder)
    try:
        return load_run_encoder(load_config(run.config), run)
    except (ConfigError, ProtocolError) as error:
        reason = str(error).removeprefix(f"--run {folder}: ")
        raise ConfigError(f"encoder.weights: {folder}: {reason}") from error


def _weights_file(file: Path, encoder: keras.Model) -> Weights:
    """Reads a `.weights.h5` of the encoder, or of the encoder in Keras' own layers."""
    try:
        check_fits_memory([file])
        check_weights_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Keras warns of weights that it doesn't find
            try:
                copy = copy_network(encoder, "encoder")
                copy.load_weights(file)
            except (ValueError, UserWarning):
                copy = plain_encoder(encoder)
                copy.load_weights(file)
    except Exception as error:  # of another file Keras raises many types
        raise ConfigError(
            f"encoder.weights: {file}: expected what save_weights wrote for an encoder as this "
            f"config's; {one_line(error)}"
        ) from error
    return _weights_by_layer(copy)


def _imagenet_weights(encoder: keras.Model, config: Config) -> Weights:
    """Returns Keras' weights for an encoder of `keras.applications`, downloaded or in its cache."""
    name = config.encoder.name.removeprefix(APPLICATIONS)
    try:
        source = getattr(keras.applications, name)(
            include_top=False, weights=IMAGENET, input_shape=_IMAGENET_SHAPE
        )
    except Exception as error:  # Keras raises plain ones
        text = one_line(error)
        if (missing := compat.failed_download(error)) is not None:
            url, file = missing
            text = (
                f"expected {Path(file).name} in {Path(file).parent}, and Keras couldn't download "
                f"it ({text.rpartition(' -- ')[2]}). Without network, download {url} on another "
                "machine and copy it there by that name"
            )
        raise ConfigError(f"encoder.weights: {IMAGENET} for {name}: {text}") from error
    arrays, shapes = source.get_weights(), [tuple(each.shape) for each in encoder.weights]
    if shapes != [array.shape for array in arrays]:
        raise ConfigError(
            f"encoder.weights: expected an encoder with the {len(arrays)} arrays of Keras' "
            f"{name}; this config's has {len(shapes)}, or others"
        )
    copy = copy_network(encoder, "encoder")
    if name.startswith("EfficientNetB"):
        # With these weights Keras adds a layer behind its Normalization that divides by sqrt(std).
        arrays[1] = arrays[1] * np.array(_IMAGENET_STD, np.float32)
    set_weights(copy, arrays)
    return _weights_by_layer(copy)


def start_from(model: BYOL, weights: Weights) -> None:
    """Sets the weights of the encoder, and of the target encoder where there is one.

    Args:
        model: a BYOL model.
        weights: see `starting_weights`.
    """
    for name, arrays in weights.items():
        set_weights(model.encoder.get_layer(name), arrays)
    model.reset_target()


def _layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers of a network by names that are the same in every process.

    Keras numbers layers without a name over all networks of a process: the first convolution of
    this one may be `conv2d_12`. Here it is `conv2d`, and the next is `conv2d_1`.
    """
    layers: dict[str, keras.Layer] = {}
    seen: Counter[str] = Counter()
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            name = re.sub(r"_\d+$", "", layer.name)
            layers[f"{name}_{seen[name]}" if seen[name] else name] = layer
            seen[name] += 1
    return layers


def _differences(
    file_layers: dict[str, keras.Layer], own_layers: dict[str, keras.Layer]
) -> list[str]:
    """Lists in which layers two networks differ.

    Layers are compared by name, as padding and pooling are layers without weights.
    """
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
