"""A network that keeps few of its activations for the backward pass and computes the others again:
less memory for more time."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf


def rematerialize(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The model's training pass, `[N, ...]` to `[N, ...]`, cut into parts of about the square root
    of its layers.

    Only what goes from one part to the next is kept; the backward pass computes a part's
    activations again. Numbers, gradients and moving statistics are the model's.

    Args:
        model: functional or `Sequential`, of one input and one output; its layers are shared.

    Raises:
        ValueError: for another model; one with layers that draw (dropout); or one that can't be
            cut, since there is no layer that all of it passes through.
    """
    parts = [_again(part) for part in _parts(model)]

    def run(inputs):
        for part in parts:
            inputs = part(inputs)
        return inputs

    return run


def _again(part: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    def run(inputs):
        passes = []

        @tf.recompute_grad
        def forward(inputs):
            passes.append(part)
            if len(passes) == 1:
                return part(inputs, training=True)
            with keras.StatelessScope():  # moving statistics have moved in the first pass
                return part(inputs, training=True)

        return forward(inputs)

    return run


def _parts(model: keras.Model) -> list[keras.Model]:
    """Models that give the model when one follows the other."""
    functional = getattr(model, "_functional", model)  # what a Sequential model is inside
    if (
        not isinstance(functional, keras.Model)
        or not hasattr(functional, "_nodes_by_depth")
        or len(functional.inputs) != 1
    ):
        raise ValueError(
            f'rematerialize: expected a functional or Sequential encoder; received "{model.name}", '
            "whose layers can't be seen"
        )
    if any(hasattr(layer, "seed_generator") for layer in functional._flatten_layers()):
        raise ValueError(
            f'rematerialize: expected an encoder without layers that draw; "{model.name}" would '
            "draw "
            "otherwise the second time"
        )
    nodes = [
        node
        for depth in sorted(functional._nodes_by_depth, reverse=True)
        for node in functional._nodes_by_depth[depth]
    ]
    last_use = {
        id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors
    }
    every = math.isqrt(len(nodes))
    cuts, living, since = [functional.inputs[0]], {}, 0
    for place, node in enumerate(nodes):
        living |= {id(tensor): tensor for tensor in node.output_tensors}
        living = {key: tensor for key, tensor in living.items() if last_use.get(key, place) > place}
        since += 1
        if len(living) == 1 and since >= every:
            cuts.append(next(iter(living.values())))
            since = 0
    if len(cuts) == 1:
        raise ValueError(
            "rematerialize: expected an encoder with a layer that all passes through; "
            f'"{model.name}" '
            "has none"
        )
    ends = [*cuts[1:], functional.outputs[0]]
    return [keras.Model(start, end) for start, end in zip(cuts, ends, strict=True)]
