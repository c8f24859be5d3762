"""Colour jitter and grayscale of a view: all of it as one matrix and an offset per image, or
operation by operation with clipping.

Images are lines, `[N, height, 3, width]`, with values around [0, 1].
"""

import math

import numpy as np
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views import random_params as draws_of

GRAY = np.float32([0.2989, 0.587, 0.114])
# A colour is its mean over the three channels and what it differs from it: saturation scales the
# difference, hue turns it about the grey axis, (1, 1, 1).
_MEAN = np.full((3, 3), 1.0 / 3.0)
_DIFFERENCE = np.eye(3) - _MEAN
_TURN = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)


def _amounts(policy, draws):
    """Offset, contrast factor, saturation factor and turn (radians), each `[N]`; those that change
    nothing where jitter wasn't drawn."""
    chosen = draws[:, draws_of.JITTER] < policy.jitter_probability
    u = draws[:, draws_of.COLOUR : draws_of.COLOUR + 4] * 2.0 - 1.0
    u = tf.where(chosen[:, None], u, 0.0)
    return (
        u[:, 0] * policy.brightness,
        1.0 + u[:, 1] * policy.contrast,
        1.0 + u[:, 2] * policy.saturation,
        u[:, 3] * policy.hue,
    )


def colour_matrices(
    policy: ViewPolicy, draws: tf.Tensor, means: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Jitter and grayscale without clipping in between: pixel -> matrix @ pixel + offset.

    Saturation and hue are the linear ones, which keep the mean of the three channels. They commute
    with each other, with contrast (distance to the channel's mean, which they carry along) and with
    brightness (a grey offset, which they leave as it is): the result is the same in each of the 24
    orders, so none has to be drawn.

    Args:
        policy: what a view is.
        draws: float32 `[N, 48]`.
        means: float32 `[N, 3]`, the channels' means of the crop.

    Returns:
        float32 matrix `[N, 3, 3]` and offset `[N, 3]`.
    """
    offset, contrast, saturation, turn = _amounts(policy, draws)
    turn *= 2.0 * math.pi
    mean, difference, turned = (
        tf.constant(part, tf.float32) for part in (_MEAN, _DIFFERENCE, _TURN)
    )
    matrix = (
        mean
        + (saturation * tf.cos(turn))[:, None, None] * difference
        + (saturation * tf.sin(turn))[:, None, None] * turned
    )
    offset = (1.0 - contrast)[:, None] * tf.linalg.matvec(matrix, means) + offset[:, None]
    matrix *= contrast[:, None, None]
    gray = (draws[:, draws_of.GRAY] < policy.grayscale_probability)[:, None]
    matrix = tf.where(
        gray[:, None], tf.reduce_sum(GRAY[:, None] * matrix, axis=1, keepdims=True), matrix
    )
    return matrix, tf.where(gray, tf.reduce_sum(GRAY * offset, axis=1, keepdims=True), offset)


def apply_colour(
    lines: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor, share: tf.Tensor | None = None
) -> tf.Tensor:
    """matrix @ pixel + offset for lines `[N, H, 3, W]`; `share` (`[N, H, 1, W]`) scales the
    offset."""
    offset = offset[:, None, :, None]
    if share is not None:
        offset *= share
    return (
        sum(matrix[:, None, :, channel, None] * lines[:, :, channel, None] for channel in range(3))
        + offset
    )


def clipped_colour(policy: ViewPolicy, draws: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
    """Jitter in the drawn order and grayscale, clipped to [0, 1] after each operation, with
    saturation and hue of HSV, as host views.

    Args:
        policy: what a view is.
        draws: float32 `[N, 48]`.
        lines: float32 `[N, H, 3, W]` in [0, 1].

    Returns:
        The same shape, dtype and range. Every image goes through every operation in each of the
        four turns, by no amount but in its own.
    """
    if policy.jitter_probability > 0.0:
        amounts = _amounts(policy, draws)
        numbers = draws[:, draws_of.ORDER : draws_of.ORDER + 4]
        ranks = tf.reduce_sum(tf.cast(numbers[:, None, :] < numbers[:, :, None], tf.int32), axis=2)
        for turn in range(4):
            now = ranks == turn
            none = (0.0, 1.0, 1.0, 0.0)
            lines = _each_operation(
                lines, *(tf.where(now[:, i], amounts[i], none[i])[:, None, None] for i in range(4))
            )
    if policy.grayscale_probability > 0.0:
        gray = (draws[:, draws_of.GRAY] < policy.grayscale_probability)[:, None, None, None]
        lines = tf.where(gray, tf.reduce_sum(GRAY[:, None] * lines, axis=2, keepdims=True), lines)
    return lines


def _each_operation(lines, offset, contrast, saturation, turn):
    """Brightness, contrast, then saturation and hue, of which at most one has an amount (`[N, 1,
    1]`) that changes an image."""
    means = tf.reduce_mean(lines, axis=(1, 3), keepdims=True)
    lines = means + contrast[..., None] * (lines - means) + offset[..., None]
    red, green, blue = tf.unstack(tf.clip_by_value(lines, 0.0, 1.0), axis=2)
    value = tf.maximum(tf.maximum(red, green), blue)
    spread = value - tf.minimum(tf.minimum(red, green), blue)
    divisor = tf.where(spread > 0.0, spread, 1.0)
    low = value - tf.minimum(spread * saturation, value)  # a saturation of at most 1
    in_blue = 4.0 + (red - green) / divisor
    sixths = tf.where(
        value == red,
        (green - blue) / divisor,
        tf.where(value == green, 2.0 + (blue - red) / divisor, in_blue),
    )
    sixths += 6.0 * turn
    sixths -= 6.0 * tf.floor(sixths / 6.0)
    shares = tf.abs(sixths - 3.0) - 1.0, 2.0 - tf.abs(sixths - 2.0), 2.0 - tf.abs(sixths - 4.0)
    return tf.stack(
        [low + (value - low) * tf.clip_by_value(share, 0.0, 1.0) for share in shares], axis=2
    )
