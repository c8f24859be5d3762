"""Inference models: images of any size in, uint8 or uint16, float32 representations out."""

from collections.abc import Sequence

import keras
import numpy as np

from byol_tf import compat
from byol_tf.errors import ProtocolError, one_line
from byol_tf.models.construction import dtype_policy, is_graph, set_weights, symbolic_input
from byol_tf.models.networks.batch_norm import BatchNorm
from byol_tf.models.networks.conv2d import Conv2D
from byol_tf.models.networks.data_init import DataInit
from byol_tf.models.networks.group_norm import GroupNorm
from byol_tf.models.networks.weight_standardization import WSConv2D, WSDense, standardized
from pipelines.sources.pixels import white

_MIN_PIXEL_SCALE = 10.0
"""Standard deviation or factor that a layer divides by at least where its input is 0 to 255. It is
57 for ImageNet's statistics, and below 1 for images in [0, 1]."""


def inference_model(
    encoder: keras.Model,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    depth: int = 8,
) -> keras.Model:
    """Builds a model that resizes, crops, normalises and encodes images, in inference mode.

    Args:
        encoder: model from normalised float images `[N, H, W, channels]` to representations
            `[N, d]`; its layers are shared.
        size: side in pixels at which the encoder sees images; the one that it was built for, or
            another one if it takes that too. The largest centred square of an image is resized to
            it, with antialiasing.
        mean: a number for each channel that is subtracted from image / white.
        std: a number for each channel that divides it afterwards.
        depth: bits of the images' pixels: 8, white is 255; or 16, it is 65,535.

    Returns:
        A functional model from uint8 or uint16 images `[N, H, W, channels]` of any size to float32
        representations `[N, d]`.

    Raises:
        ValueError: if the encoder doesn't take images of `size`.
    """
    encoder = at_size(encoder, size)
    images = keras.Input((None, None, len(mean)), dtype=f"uint{depth}", name="images")
    # Without this cast to float32, Keras' resize rounds to whole numbers where it runs eagerly, and
    # doesn't in a graph.
    x = keras.layers.Rescaling(1.0, dtype="float32", name="pixels")(images)
    centre = keras.layers.Resizing(
        size,
        size,
        "bilinear",
        crop_to_aspect_ratio=True,
        antialias=True,
        dtype="float32",
        name="centre",
    )
    # XLA has no antialiased resize, and where there is a GPU Keras would compile every model that
    # contains this layer.
    centre.supports_jit = False
    x = centre(x)
    scale = [1.0 / (white(images.dtype) * s) for s in std]
    offset = [-m / s for m, s in zip(mean, std, strict=True)]
    x = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalise")(x)
    x = encoder(x, training=False)
    outputs = keras.layers.Activation("linear", dtype="float32", name="float32")(x)
    return keras.Model(images, outputs, name="encoder")


def at_size(encoder: keras.Model, size: int) -> keras.Model:
    """Returns an encoder for square images of another size, as a model that shares its layers.

    Args:
        encoder: from images `[N, H, W, channels]` to representations `[N, d]`.
        size: side of its images in pixels.

    Returns:
        The model; the encoder itself if it was built for `size`, or for any size.

    Raises:
        ValueError: if it takes no other size than its own, as a network with an embedding of each
            position does.
    """
    _, height, width, channels = symbolic_input(encoder).shape
    if height in (size, None) and width in (size, None):
        return encoder
    images = keras.Input((size, size, channels), name="images")
    try:
        # A functional model refuses to be called with another shape than it was built for.
        representations = encoder.call(images) if is_graph(encoder) else encoder(images)
    except Exception as error:  # layers raise errors of any kind
        raise ValueError(
            f'expected {height}, the only size that "{encoder.name}" takes; received {size} '
            f"({one_line(error)})"
        ) from error
    return keras.Model(images, representations, name=encoder.name)


def split_inference_model(
    inference: keras.Model,
) -> tuple[keras.layers.Layer, keras.layers.Layer, keras.Model]:
    """Returns the resize, the normalisation and the encoder of an inference model.

    Raises:
        ProtocolError: if the model wasn't built by `inference_model`.
    """
    try:
        resize, normalise = inference.get_layer("centre"), inference.get_layer("normalise")
        (encoder,) = [layer for layer in inference.layers if isinstance(layer, keras.Model)]
    except ValueError:
        raise ProtocolError(
            "expected an encoder whose weights can be trained: a run, or the encoder.keras that a "
            "run exported. A SavedModel is fixed in inference mode, and in other files it isn't "
            "known where resize and normalisation end"
        ) from None
    return resize, normalise, encoder


def takes_pixels(model: keras.Model) -> bool:
    """Returns whether a model is known to take images with values from 0 to 255.

    Either its input is of an integer type, or the first layer scales it down, as those of several
    `keras.applications` do.

    Args:
        model: with one input; functional or `Sequential`.
    """
    (images,) = model.inputs
    if not keras.backend.is_float_dtype(images.dtype):
        return True
    consumers = {
        call.operation
        for call in compat.graph_calls(model)
        if any(tensor is images for tensor in call.input_tensors)
    }
    if len(consumers) != 1:
        return False
    (first,) = consumers
    if isinstance(first, keras.Model):
        return is_graph(first) and takes_pixels(first)
    if isinstance(first, keras.layers.Rescaling):
        return bool(np.max(np.abs(first.scale)) <= 1.0 / _MIN_PIXEL_SCALE)
    if isinstance(first, keras.layers.Normalization):
        return bool(np.min(first.variance) >= _MIN_PIXEL_SCALE**2)
    return False


def exported_form(inference: keras.Model) -> keras.Model:
    """Copies an inference model into Keras' own layers in float32, as it is exported.

    Args:
        inference: an inference model of this module.

    Returns:
        A model with weights of its own.

    Raises:
        ValueError: for another model.
    """
    if "centre" not in {layer.name for layer in inference.layers}:
        raise ValueError(
            "expected an inference model, from uint8 images of any size to representations; "
            f'received "{inference.name}". inference_model(encoder, size, mean, std) builds one'
        )
    copy = plain_encoder(inference)
    copy.get_layer("centre").supports_jit = False  # as in `inference_model`: no config states it
    return copy


def plain_encoder(encoder: keras.Model) -> keras.Model:
    """Copies an encoder into Keras' own layers in float32.

    The copy has weights of its own, and its `.keras` file loads without byol_tf. Standardised
    kernels become plain ones of the same values, and `DataInit` the 1x1 depthwise convolution that
    it is. A subclassed model becomes a functional one of the layers that it calls; one whose `call`
    computes something else, and a layer that has no `get_config`, are used as they are.
    """
    if not is_graph(encoder):
        return _plain_layer(encoder)
    copies: list[tuple[keras.Layer, keras.Layer]] = []

    def copy_layer(layer: keras.Operation) -> keras.Operation:
        copy = _plain_layer(layer)
        if copy is not layer and not isinstance(layer, keras.Model):
            copies.append((layer, copy))
        return copy

    with dtype_policy("float32"):  # for the layers that a layer builds inside it
        plain = keras.models.clone_model(encoder, clone_function=copy_layer, recursive=True)
    for layer, copy in copies:
        set_weights(copy, _plain_weights(layer))
    return plain


def _plain_layer(layer: keras.Operation) -> keras.Operation:
    if isinstance(layer, keras.Model):
        return _plain_subclassed_model(layer)
    if not isinstance(layer, keras.Layer):
        return layer  # an operation, such as that of `x * 2`, has neither weights nor dtype
    try:
        config = layer.get_config() | {"dtype": "float32"}
        if isinstance(layer, BatchNorm):
            return keras.layers.BatchNormalization.from_config(config | {"synchronized": False})
        if isinstance(layer, GroupNorm):
            return keras.layers.GroupNormalization.from_config(config)
        if isinstance(layer, DataInit):
            return keras.layers.DepthwiseConv2D(1, name=layer.name, dtype="float32")
        if isinstance(layer, WSConv2D | WSDense):
            del config["epsilon"]
        if isinstance(layer, Conv2D):
            return keras.layers.Conv2D.from_config(config)
        if isinstance(layer, WSDense):
            return keras.layers.Dense.from_config(config)
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError):  # a Lambda, or a class without get_config
        return layer


def _plain_subclassed_model(model: keras.Model) -> keras.Model:
    try:
        images = symbolic_input(model)
        graph = keras.Model(images, model.call(images), name=model.name)
    except Exception:  # on symbolic tensors, TensorFlow's functions raise many types
        return model
    return plain_encoder(graph)


def _plain_weights(layer: keras.layers.Layer) -> list[np.ndarray]:
    weights = layer.get_weights()
    if isinstance(layer, DataInit):
        gamma, beta = weights
        return [gamma[None, None, :, None], beta]
    if isinstance(layer, WSConv2D | WSDense):
        return [standardized(weights[0], layer.epsilon).numpy(), *weights[1:]]
    return weights
