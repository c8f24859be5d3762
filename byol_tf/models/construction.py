"""Builds, checks and copies the networks that a BYOL model is made of."""

import contextlib
from collections.abc import Iterator
from typing import Literal

import keras
import numpy as np

from byol_tf import compat
from byol_tf.constants import HIDDEN_SIZE, PROJECTION_SIZE
from byol_tf.errors import one_line
from byol_tf.models.networks import mlp_head


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Builds layers by a dtype policy; then the process has its own again."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_heads(
    encoder: keras.Model,
    projector: keras.Model | Literal["paper"],
    predictor: keras.Model | Literal["paper"] | None,
    teacher: keras.Model | None = None,
) -> tuple[keras.Model, keras.Model | None]:
    """Returns projector and predictor, the paper's where it is asked for.

    With a teacher, projections are as wide as its representations.

    Raises:
        ValueError: if a network isn't built, or gives another shape than the next one takes; if the
            teacher shares weights with the encoder.
    """
    features = output_width(encoder, "encoder")
    width = PROJECTION_SIZE if teacher is None else output_width(teacher, "teacher")
    if projector == "paper":
        projector = mlp_head(features, HIDDEN_SIZE, width, "projector")
    check_input_width(projector, features, "projector", "encoder")
    projection = output_width(projector, "projector")
    if teacher is not None and projection != width:
        raise ValueError(
            f"projector: expected output of shape [N, {width}], as the teacher's representations "
            f"have; received [N, {projection}]"
        )
    if teacher is not None and shares_weights(teacher, encoder):
        raise ValueError("teacher: expected weights of its own; some are the encoder's")
    if predictor == "paper":
        predictor = mlp_head(projection, HIDDEN_SIZE, projection, "predictor")
    if predictor is not None:
        check_input_width(predictor, projection, "predictor", "projector")
        if (width := output_width(predictor, "predictor")) != projection:
            raise ValueError(
                f"predictor: expected output of shape [N, {projection}], as projections have; "
                f"received [N, {width}]"
            )
    return projector, predictor


def check_weight_dtype(network: keras.Model, role: str) -> None:
    """Raises `ValueError` unless all float weights of a network are float32."""
    for weight in network.weights:
        if "float" in weight.dtype and weight.dtype != "float32":
            raise ValueError(
                f"{role}: expected float32 weights, which the target's small steps need "
                '(dtype policy "float32", "mixed_bfloat16" or "mixed_float16"); received '
                f'{weight.dtype} of "{weight.path}"'
            )


def output_width(network: keras.Model, role: str) -> int:
    """Returns the d of a network's output `[N, d]`.

    Args:
        network: a built model.
        role: what an error calls it, such as `encoder`.

    Raises:
        ValueError: if the network isn't built, has several inputs, or its output has another shape.
    """
    if not getattr(network, "built", False) or not network.weights:
        raise ValueError(
            f'{role}: expected a built keras.Model; received "{getattr(network, "name", network)}",'
            " which has no weights yet. Call it on "
            f"{'an image' if role == 'encoder' else 'its input'} first"
        )
    inputs = getattr(network, "inputs", None)  # a subclassed model has none
    if inputs is not None and len(inputs) != 1:
        raise ValueError(
            f'{role}: expected a model with one input; received "{network.name}" with {len(inputs)}'
        )
    shape = getattr(network(symbolic_input(network)), "shape", None)
    if shape is None or len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            f'{role}: expected output of shape [N, d]; received {shape} from "{network.name}". End '
            "it with pooling"
        )
    return shape[-1]


def check_input_width(network: keras.Model, width: int, role: str, source: str) -> None:
    """Raises `ValueError` unless a built network takes `[N, width]`, the output of `source`."""
    output_width(network, role)
    shape = symbolic_input(network).shape
    if shape[1:] != (width,):
        raise ValueError(
            f"{role}: expected a model that takes [N, {width}], the output of the {source}; "
            f"received one for {shape}"
        )


def target_copy(network: keras.Model, target: keras.Model | None, role: str) -> keras.Model:
    """Returns a target network that equals the online one now, without dropout.

    The target predicts with all of its units, as DINO's teacher does
    (https://github.com/facebookresearch/dino, `main_dino.py`), while its batch statistics are those
    of training. So it runs in training mode, and its random layers drop nothing.

    Args:
        network: the online network, built.
        target: a second network, which gets the weights of the first; None to copy the first.
        role: what an error calls the online network, such as `encoder`.

    Raises:
        ValueError: if Keras can't copy the network, or `target` has other weights than it or
            shares some with it.
    """
    if target is None:
        return _without_dropout(copy_network(network, role))
    shapes, target_shapes = (
        [tuple(weight.shape) for weight in each.weights] for each in (network, target)
    )
    if shapes != target_shapes:
        raise ValueError(
            f"target_{role}: expected a model with the {len(shapes)} weights of the {role}, in its "
            f'order and shapes; received "{target.name}" with {len(target_shapes)}'
        )
    if shares_weights(network, target):
        raise ValueError(
            f"target_{role}: expected weights of its own; some are the {role}'s. Build the model a "
            "second time"
        )
    set_weights(target, network.get_weights())
    return _without_dropout(target)


_RATES = ("rate", "drop_path_rate", "stddev")
"""Attributes by which random layers of Keras and keras_hub do nothing at 0: dropout, stochastic
depth, noise."""


def _without_dropout(network: keras.Model) -> keras.Model:
    for layer in compat.all_layers(network):
        if compat.is_random(layer):
            for name in _RATES:
                if hasattr(layer, name):
                    setattr(layer, name, 0.0)
    return network


def shares_weights(network: keras.Model, other: keras.Model) -> bool:
    """Returns whether a weight of one model is a weight of the other too."""
    return bool({id(weight) for weight in network.weights} & {id(w) for w in other.weights})


def copy_network(network: keras.Model, role: str) -> keras.Model:
    """Returns the same network with weights of its own, equal now (`clone_model` copies none).

    Raises:
        ValueError: if Keras can't copy it.
    """
    try:
        copy = (
            keras.models.clone_model(network, clone_function=_copy_layer, recursive=True)
            if is_graph(network)
            else keras.models.clone_model(network)
        )
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{role}: expected a model that can be copied, with the constructor arguments of each "
            f'class of its own in get_config(); received "{network.name}" ({one_line(error)}). Or '
            f"build it a second time, and pass that as target_{role}; to Experiment, pass a "
            "function that builds it"
        ) from error
    copy(symbolic_input(network))  # a subclassed model gets its weights when it is called
    set_weights(copy, network.get_weights())
    return copy


def _copy_layer(layer: keras.Operation) -> keras.Operation:
    # A Lambda has no weights, and Keras refuses to copy its function from a config.
    if isinstance(layer, keras.layers.Lambda):
        return layer
    return type(layer).from_config(layer.get_config())


def frozen_layers(network: keras.Model) -> list[int]:
    """Returns the indices in `compat.all_layers(network)` of layers that aren't trainable."""
    return [index for index, each in enumerate(compat.all_layers(network)) if not each.trainable]


def freeze_layers(network: keras.Model, frozen: list[int]) -> None:
    """Freezes the layers that `frozen_layers` names, and no other one."""
    for index, layer in enumerate(compat.all_layers(network)):  # a layer before those inside it
        if layer.trainable != (index not in frozen):
            layer.trainable = index not in frozen


def is_graph(network: keras.Model) -> bool:
    """Returns whether a model is functional or `Sequential`: Keras knows which layers it calls."""
    return isinstance(network, keras.Sequential) or hasattr(network, "operations")


def freeze_batch_norm(network: keras.Model, frozen: bool = True) -> None:
    """Has each batch normalisation keep its statistics, scale and offset, and run as in inference.

    With `frozen` false they are trained again. Keras' guide advises freezing them where a network
    is fine-tuned (https://keras.io/guides/transfer_learning/).
    """
    for layer in compat.all_layers(network):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen


def set_weights(layer: keras.Layer, weights: list[np.ndarray]) -> None:
    """Sets the weights of a layer or model, as Keras' `set_weights`; see `refresh_constants`."""
    layer.set_weights(weights)
    refresh_constants(layer)


def refresh_constants(layer: keras.Layer) -> None:
    """Has each `Normalization` inside compute its constants from its weights.

    Keras does that when it loads a file; `set_weights` and `assign` leave them as they were.
    """
    for inner in compat.all_layers(layer):
        if isinstance(inner, keras.layers.Normalization):
            inner.finalize_state()


def symbolic_input(network: keras.Model) -> keras.KerasTensor:
    """Returns an input of the shape that the network was built for.

    A subclassed model has no `input_shape`.
    """
    if hasattr(network, "input_shape"):
        return keras.Input(network.input_shape[1:])
    return keras.Input(network.get_build_config()["input_shape"][1:])
