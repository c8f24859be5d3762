"""Encoders that byol_tf doesn't define: of `keras.applications`, of keras_hub, and one's own.

All become what the rest of byol_tf expects: a model from images that are normalised by `views.mean`
and `views.std` to representations `[N, d]`. One with a preprocessing of its own gets the pixels
back, from 0 to 255, so that no image is normalised twice; one that ends in a map or in tokens gets
a pooling layer.
"""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence

import keras
import numpy as np

from byol_tf.constants import APPLICATIONS
from byol_tf.models.construction import is_graph, symbolic_input
from byol_tf.models.inference import takes_pixels
from pipelines.extras import install_line

_HUB = "keras_hub/"


def build_external_encoder(
    name: str, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Builds an encoder by the name that `encoder.name` has for it; its weights are random.

    Args:
        name: `keras.applications/NAME`, `keras_hub/PRESET` or `module:function`.
        image_size: side of the square input in pixels.
        mean: a number for each channel that was subtracted from image / white.
        std: a number for each channel that divided it afterwards.

    Returns:
        A model from normalised float images `[N, image_size, image_size, channels]` to
        representations `[N, d]`.

    Raises:
        ValueError: if there is no such encoder, or it doesn't take such images.
    """
    if name.startswith(APPLICATIONS):
        return _application(name.removeprefix(APPLICATIONS), image_size, mean, std)
    if name.startswith(_HUB):
        return _backbone(name.removeprefix(_HUB), image_size, mean, std)
    return as_encoder(_imported(name)(image_size=image_size), image_size, mean, std)


def as_encoder(
    model: keras.Model, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Adapts a model to normalised images and to representations `[N, d]`.

    Args:
        model: built, from images to vectors, maps `[N, h, w, d]` or tokens `[N, t, d]`; its layers
            are shared. It takes normalised images, or pixels that its first layer scales.
        image_size: side of the square input in pixels.
        mean: a number for each channel that was subtracted from image / white.
        std: a number for each channel that divided it afterwards.

    Returns:
        The model with what it needs before and after it; the model itself if it needs nothing.

    Raises:
        ValueError: if it isn't built, or takes or returns something else.
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"expected a built keras.Model; received {model!r:.80}")
    graph = is_graph(model)
    if graph and not len(model.inputs) == len(model.outputs) == 1:
        raise ValueError(
            f"expected a model of one input and one output; received {len(model.inputs)} and "
            f"{len(model.outputs)}"
        )
    shape = symbolic_input(model).shape
    channels = len(mean)
    if len(shape) != 4 or shape[3] != channels or not {shape[1], shape[2]} <= {image_size, None}:
        raise ValueError(
            f"expected a model of images [N, {image_size}, {image_size}, {channels}], as "
            f"views.size is {image_size} and data.channels {channels}; received one of "
            f"{list(shape)}"
        )
    scaled = graph and takes_pixels(model)
    if scaled:
        inputs, x = _pixels(image_size, mean, std)
        # Its layers become those of the encoder, so that `rematerialize` can cut it.
        outputs = model.call(x)
    elif graph:
        inputs, outputs = model.inputs[0], model.outputs[0]
    else:
        inputs = keras.Input((image_size, image_size, channels), name="images")
        outputs = model(inputs)
    if not isinstance(outputs, keras.KerasTensor) or len(outputs.shape) not in (2, 3, 4):
        raise ValueError(
            "expected a model that returns [N, d], [N, tokens, d] or [N, h, w, d]; received "
            f"{getattr(outputs, 'shape', type(outputs).__name__)}"
        )
    if len(outputs.shape) == 2 and not scaled:
        return model
    if len(outputs.shape) == 3:
        outputs = keras.layers.GlobalAveragePooling1D(name="representation")(outputs)
    elif len(outputs.shape) == 4:
        outputs = keras.layers.GlobalAveragePooling2D(name="representation")(outputs)
    return keras.Model(inputs, outputs, name=model.name)


def _pixels(
    image_size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Returns an input of normalised images, and their pixels, 0 to 255, in float32."""
    inputs = keras.Input((image_size, image_size, len(mean)), name="images")
    scale, offset = [255.0 * s for s in std], [255.0 * m for m in mean]
    return inputs, keras.layers.Rescaling(scale, offset, dtype="float32", name="pixels")(inputs)


def _application(
    name: str, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Builds a network of `keras.applications` behind its own `preprocess_input`.

    That is for RGB; other images are only normalised.
    """
    builders = {
        each: function
        for each, function in vars(keras.applications).items()
        if inspect.isfunction(function)
    }
    if name not in builders:
        near = difflib.get_close_matches(name, builders, n=1, cutoff=0.0)[0]
        raise ValueError(f'expected a network of keras.applications; did you mean "{near}"?')
    if len(mean) != 3:
        images = keras.Input((image_size, image_size, len(mean)), name="images")
        model = builders[name](include_top=False, weights=None, input_tensor=images, pooling="avg")
        return as_encoder(model, image_size, mean, std)
    _, pixels = _pixels(image_size, mean, std)
    preprocess = sys.modules[builders[name].__module__].preprocess_input
    model = builders[name](
        include_top=False, weights=None, input_tensor=preprocess(pixels), pooling="avg"
    )
    # Behind an `input_tensor` Keras expects a list of one input, and warns of each call without.
    return keras.Model(model.inputs[0], model.outputs[0], name=model.name)


def _backbone(
    preset: str, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> keras.Model:
    """Builds a backbone of keras_hub, behind the preprocessing of its preset if that has one.

    Of tokens the first is the representation where there are more of them than patches, as in
    keras_hub's classifiers: the class token.
    """
    if len(mean) != 3:
        raise ValueError(f"expected data.channels to be 3, as presets have; it is {len(mean)}")
    try:
        import keras_hub
    except ImportError as error:
        raise ValueError(f"expected keras_hub: {install_line('keras-hub')} ({error})") from error
    presets = keras_hub.models.Backbone.presets
    if preset not in presets:
        near = difflib.get_close_matches(preset, presets, n=1, cutoff=0.0)[0]
        raise ValueError(f'expected a preset of keras_hub; did you mean "{near}"?')
    shape = (image_size, image_size, 3)
    try:
        backbone = keras_hub.models.Backbone.from_preset(
            preset, load_weights=False, image_shape=shape
        )
    except OSError as error:
        raise ValueError(
            f"expected its config.json, which keras_hub fetches from "
            f"{presets[preset]['kaggle_handle']} into the folder ~/.cache/kagglehub, or that of "
            "the environment variable KAGGLEHUB_CACHE. Without a network, fetch it on another "
            f"machine and copy that folder ({type(error).__name__})"
        ) from error
    except TypeError as error:
        raise ValueError(f"expected a preset of images ({error})") from error
    features, patch = backbone.outputs[0], getattr(backbone, "patch_size", None)
    if len(features.shape) == 3 and patch is not None:
        patches = (image_size // (patch if isinstance(patch, int) else patch[0])) ** 2
        features = features[:, 0] if features.shape[1] > patches else features
    encoder = as_encoder(
        keras.Model(backbone.inputs[0], features, name=backbone.name), image_size, mean, std
    )
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(preset)
    except (OSError, ValueError):  # the preset has none, or it isn't in the cache
        return encoder
    # It is one line for all pixels of a channel, whichever arguments describe it.
    black, white = (
        np.reshape(converter(np.full((1, *shape), pixel, np.float32)), (-1, 3))[0]
        for pixel in (0.0, 255.0)
    )
    preprocess = keras.layers.Rescaling(
        ((white - black) / 255.0).tolist(), black.tolist(), dtype="float32", name="preprocess"
    )
    inputs, pixels = _pixels(image_size, mean, std)
    return keras.Model(inputs, encoder(preprocess(pixels)), name=backbone.name)


def _imported(name: str) -> Callable[..., keras.Model]:
    """Imports the function of `module:function`; modules of the current folder are found too."""
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # of a package that the module itself imports
        raise ValueError(
            f"expected a module that is installed or in the current folder, {os.getcwd()}; there "
            f'is no module "{error.name}"'
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f'expected a function; "{module_name}" has none of the name')
    try:
        inspect.signature(function).bind(image_size=0)
    except TypeError as error:
        raise ValueError(
            f"expected a function that is called with image_size=... alone; {error}"
        ) from error
    return function
