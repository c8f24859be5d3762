"""Export to ONNX, for images of any size."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from byol_tf.export.saved_model import images_spec, split_export

if TYPE_CHECKING:
    import tf2onnx

_OPSET = 17  # ONNX Runtime has had it since 2022


def write_onnx(
    model: keras.Model,
    path: Path,
    output: str = "representations",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a graph from `images`, uint8 or uint16, to a float32 output.

    Args:
        model: the inference model, made of Keras' own layers (see `inference.exported_form`), from
            `[N, H, W, channels]` of any size to `[N, d]`.
        path: the file to write.
        output: its name.
        metadata: strings that the file holds beside the graph.
    """
    import onnx
    import tf2onnx

    _, encode = split_export(model)
    size = encode.input_shape[1]
    signature = [images_spec(model)]
    represent = tf.function(
        lambda images: {output: encode(resize_centre(images, size), training=False)},
        input_signature=signature,
    )
    eagerly = tf.config.functions_run_eagerly()
    # Keras makes a function for XLA of each grouped convolution, as ConvNeXt has them. This way its
    # operations become the graph's own.
    tf.config.run_functions_eagerly(True)
    try:
        graph, _ = tf2onnx.convert.from_function(
            represent, signature, opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
        )
        concrete = represent.get_concrete_function()
    finally:
        tf.config.run_functions_eagerly(eagerly)
    # Constants that layers hold as tensors, as `Normalization` does, became inputs.
    inner = concrete.inputs[len(signature) :]
    constants = zip(inner, concrete.captured_inputs, strict=True)
    values = {one.name: other.numpy() for one, other in constants if one.dtype != tf.resource}
    inputs = [each for each in graph.graph.input if each.name not in values]
    del graph.graph.input[:]
    graph.graph.input.extend(inputs)
    used = {name for node in graph.graph.node for name in node.input}
    graph.graph.initializer.extend(
        onnx.numpy_helper.from_array(values[name], name) for name in sorted(used & values.keys())
    )
    onnx.helper.set_model_props(graph, dict(metadata or {}))
    onnx.save(graph, str(path))


def _erfc(context: "tf2onnx.graph.Graph", node: "tf2onnx.graph.Node", *_: object) -> None:
    """Replaces an operation of exact GELU that ONNX lacks: erfc(x) = 1 - erf(x)."""
    (x,), (output,) = node.input, node.output
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    erf = context.make_node("Erf", [x], shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{node.name}_one", np.float32(1.0))
    context.remove_node(node.name)
    context.make_node(
        "Sub",
        [one.output[0], erf.output[0]],
        name=node.name,
        outputs=[output],
        shapes=[shape],
        dtypes=[dtype],
    )


def resize_centre(images: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes the largest centred squares of images by matrix products, as ONNX has no such resize.

    The result is that of `keras.layers.Resizing(size, size, crop_to_aspect_ratio=True,
    antialias=True)`: a separable linear map of rows and columns.

    Args:
        images: uint8 or uint16 `[N, H, W, channels]`.
        size: side of the result in pixels.

    Returns:
        float32 `[N, size, size, channels]`, with the same values.
    """
    channels = images.shape[3]
    height, width = tf.unstack(tf.shape(images)[1:3])
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = tf.cast(images[:, top : top + side, left : left + side], tf.float32)
    matrix = _resize_matrix(side, size)
    rows = tf.matmul(matrix, tf.reshape(square, (-1, side, side * channels)))
    rows = tf.reshape(rows, (-1, size, side, channels))
    return tf.ensure_shape(tf.matmul(matrix, rows), (None, size, size, channels))


def _resize_matrix(length: tf.Tensor, size: int) -> tf.Tensor:
    """Returns `[size, length]`: each row has the weights of the input pixels of one output pixel.

    They are a triangle filter, widened by the scale where the image is reduced (antialiasing).
    """
    scale = tf.cast(length, tf.float32) / size
    centres = (tf.range(size, dtype=tf.float32) + 0.5) * scale - 0.5
    distances = tf.abs(tf.cast(tf.range(length), tf.float32)[None] - centres[:, None])
    weights = tf.maximum(0.0, 1.0 - distances / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
