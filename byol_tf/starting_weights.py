"""Weights that a run's encoder starts from: those of an `encoder.keras` that a conversion or another run left."""

from pathlib import Path

import keras
import numpy as np

from byol_tf.byol import BYOL
from byol_tf.config import Views
from byol_tf.config_errors import ConfigError
from byol_tf.model_files import check_keras_file, in_short

Weights = dict[str, list[np.ndarray]]
"""Name of a layer -> its arrays, in Keras' order."""


def starting_weights(path: str, encoder: keras.Model, views: Views) -> Weights:
    """The weights for an encoder from a file, once the file's network is found to be the same.

    The file may come from anywhere: it is looked through before it is loaded, and what could do more than compute is refused.

    Args:
        path: an `encoder.keras`, or a folder that holds one.
        encoder: of the run, from normalised images to representations.
        views: of the run: the file's encoder has to be used to the same mean and deviation. Sizes may differ.

    Raises:
        ConfigError: if there is no such file, it holds something else, or a network with other layers or shapes.
    """
    file = Path(path) / "encoder.keras" if Path(path).is_dir() else Path(path)
    if file.suffix != ".keras" or not file.is_file():
        raise ConfigError([f'encoder.weights: expected an encoder.keras, or a folder that holds one; received "{path}"'])
    try:
        check_keras_file(file)
        inference = keras.models.load_model(file, compile=False, safe_mode=True)
        (given,) = [layer for layer in inference.layers if isinstance(layer, keras.Model)]
        normalise = inference.get_layer("normalise")
        scale, offset = np.array(normalise.scale, np.float64), np.array(normalise.offset, np.float64)
    except Exception as error:  # of what isn't such a file, Keras raises many kinds
        raise ConfigError([f"encoder.weights: {file}: expected the encoder.keras of a run or a conversion; {in_short(error)}"]) from error
    lines = _differences(given, encoder)
    std = 1.0 / (255.0 * scale)
    mean = -offset * std
    for name, theirs, ours in (("mean", mean, views.mean), ("std", std, views.std)):
        if not np.allclose(theirs, ours, rtol=1e-4, atol=1e-6):
            lines.append(f"its images are normalised with {name} {[round(float(x), 4) for x in theirs]}, and views.{name} is {list(ours)}")
    if lines:
        raise ConfigError([f"encoder.weights: {file}: expected an encoder as this config's: {line}" for line in lines])
    return {layer.name: layer.get_weights() for layer in given.layers if layer.weights}


def start_from(model: BYOL, weights: Weights) -> None:
    """Sets the encoder's weights, and its target's where there is one: both networks start alike."""
    encoders = [model.encoder, *([model.target_encoder] if model.target == "ema" else [])]
    for encoder in encoders:
        for name, arrays in weights.items():
            encoder.get_layer(name).set_weights(arrays)


def _differences(given: keras.Model, encoder: keras.Model) -> list[str]:
    """What the file's network has otherwise. Layers are compared by name: padding and pooling have layers, and no weights."""
    theirs, ours = (
        {layer.name: layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)} for model in (given, encoder)
    )
    lines = []
    for names, text in ((sorted(set(ours) - set(theirs)), "it lacks"), (sorted(set(theirs) - set(ours)), "it has besides")):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{text} {len(names)} layers: {', '.join(names[:3])}{more} (encoder.name, stem, normalization or padding differs)")
    if not lines:
        shapes = [(name, [tuple(w.shape) for w in theirs[name].weights], [tuple(w.shape) for w in ours[name].weights]) for name in ours]
        wrong = [(name, its, mine) for name, its, mine in shapes if its != mine]
        lines += [f"{len(wrong)} layers have other shapes, as {name} with {its} for {mine}" for name, its, mine in wrong[:1]]
    return lines
