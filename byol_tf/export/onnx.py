"""The encoder as an ONNX file for images of any size."""

from pathlib import Path

import keras
import tensorflow as tf

from byol_tf.export.saved_model import split_export

_OPSET = 17  # ONNX Runtime has had it since 2022


def write_onnx(plain: keras.Model, path: Path) -> None:
    """Writes a graph from `images`, uint8 `[N, H, W, 3]` of any size, to `representations`, float32
    `[N, d]`.

    Args:
        plain: of Keras' own layers (see `saved_encoder.exported_form`).
        path: to write.
    """
    import tf2onnx

    _, encode = split_export(plain)
    size = encode.input_shape[1]
    signature = [tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")]
    represent = tf.function(
        lambda images: {"representations": encode(centred(images, size), training=False)},
        input_signature=signature,
    )
    tf2onnx.convert.from_function(represent, signature, opset=_OPSET, output_path=str(path))


def centred(images: tf.Tensor, size: int) -> tf.Tensor:
    """What `keras.layers.Resizing(size, size, crop_to_aspect_ratio=True, antialias=True)` gives, as
    matrices: ONNX has no such resize.

    Args:
        images: uint8 `[N, H, W, 3]`.
        size: side of the result.

    Returns:
        float32 `[N, size, size, 3]`, 0 to 255: the largest centred square, resized.
    """
    height, width = tf.unstack(tf.shape(images)[1:3])
    side = tf.minimum(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = tf.cast(images[:, top : top + side, left : left + side], tf.float32)
    matrix = _resize_matrix(side, size)
    rows = tf.reshape(
        tf.matmul(matrix, tf.reshape(square, (-1, side, side * 3))), (-1, size, side, 3)
    )
    return tf.ensure_shape(tf.matmul(matrix, rows), (None, size, size, 3))


def _resize_matrix(length: tf.Tensor, size: int) -> tf.Tensor:
    """`[size, length]`: each row the weights of the pixels around one, a triangle as wide as the
    reduction, as antialiasing has it."""
    scale = tf.cast(length, tf.float32) / size
    centres = (tf.range(size, dtype=tf.float32) + 0.5) * scale - 0.5
    distances = tf.abs(tf.cast(tf.range(length), tf.float32)[None] - centres[:, None])
    weights = tf.maximum(0.0, 1.0 - distances / tf.maximum(scale, 1.0))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)
