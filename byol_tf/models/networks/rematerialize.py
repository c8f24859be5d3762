"""Rematerialization: recomputes activations in the backward pass, for less memory and more time."""

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from byol_tf import compat


def rematerialize(model: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that calls the model in training mode and stores few activations.

    The model is cut into segments of about the square root of its number of layers (Chen et al.,
    2016, https://arxiv.org/abs/1604.06174). Only what passes from one segment to the next is
    stored; the backward pass recomputes the activations of a segment. Outputs, gradients and moving
    statistics are those of the model.

    `keras.remat` and `keras.RematScope` store the input of every layer, and of a whole model only
    its input; they don't cut.

    Args:
        model: functional or `Sequential`, with one input and one output. The function shares its
            layers.

    Returns:
        A function from the model's input to its output.

    Raises:
        ValueError: for another model, for one with random layers such as dropout, or for one that
            can't be cut, as there is no layer that all of its data passes through.
    """
    segments = [_recomputing(segment) for segment in _segments(model)]

    def call(inputs: tf.Tensor) -> tf.Tensor:
        for segment in segments:
            inputs = segment(inputs)
        return inputs

    return call


def _recomputing(segment: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    def call(inputs: tf.Tensor) -> tf.Tensor:
        first = True

        @tf.recompute_grad
        def forward(inputs: tf.Tensor) -> tf.Tensor:
            nonlocal first
            if first:
                first = False
                return segment(inputs, training=True)
            with keras.StatelessScope():  # the first pass has updated the moving statistics
                return segment(inputs, training=True)

        return forward(inputs)

    return call


def _segments(model: keras.Model) -> list[keras.Model]:
    """Cuts a model into models that give the same output one after the other."""
    try:
        calls = compat.graph_calls(model)
    except TypeError:
        calls = []
    if not calls or len(model.inputs) != 1:
        raise ValueError(
            f'rematerialize: expected a functional or Sequential encoder; received "{model.name}", '
            "whose layers can't be seen"
        )
    if any(map(compat.is_random, compat.all_layers(model))):
        raise ValueError(
            f'rematerialize: expected an encoder without random layers; "{model.name}" would use '
            "other random numbers the second time"
        )
    last_use = {
        id(tensor): index for index, call in enumerate(calls) for tensor in call.input_tensors
    }
    length = math.isqrt(len(calls))
    # A cut is possible behind a call where a single tensor is still needed.
    needed: dict[int, keras.KerasTensor] = {}
    cuts, since_cut = [model.inputs[0]], 0
    for index, call in enumerate(calls):
        needed |= {id(tensor): tensor for tensor in call.output_tensors}
        needed = {key: tensor for key, tensor in needed.items() if last_use.get(key, index) > index}
        since_cut += 1
        if len(needed) == 1 and since_cut >= length:
            cuts.append(next(iter(needed.values())))
            since_cut = 0
    if len(cuts) == 1:
        raise ValueError(
            "rematerialize: expected an encoder with a layer that all passes through; "
            f'"{model.name}" has none'
        )
    ends = [*cuts[1:], model.outputs[0]]
    try:
        return [keras.Model(start, end) for start, end in zip(cuts, ends, strict=True)]
    except ValueError as error:
        raise ValueError(
            "rematerialize: expected an encoder that Keras can cut between layers; "
            f'"{model.name}" it can\'t, as where a cut is between two calls of one layer'
        ) from error
