"""Colour jitter and grayscale of a view: one matrix and an offset, or operation by operation.

Images are lines, `[N, height, channels, width]`, with values around [0, 1]. Those of other numbers
of channels than three have brightness and contrast only.
"""

import math

import numpy as np
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views.random_params import COLOR, GRAYSCALE, JITTER, ORDER

GRAY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)
# A colour is its mean over the three channels plus a difference from it: saturation scales the
# difference, hue rotates it about the grey axis, (1, 1, 1).
_MEAN = np.full((3, 3), 1.0 / 3.0)
_DIFFERENCE = np.eye(3) - _MEAN
_ROTATION = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
_NO_JITTER = (0.0, 1.0, 1.0, 0.0)  # brightness, contrast, saturation, hue


def _jitter_amounts(policy: ViewPolicy, params: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns brightness offset, contrast and saturation factors and hue shift, each `[N]`.

    They are those of `_NO_JITTER` for an image that isn't jittered; the shift is a fraction of the
    circle.
    """
    chosen = params[:, JITTER] < policy.jitter_probability
    u = params[:, COLOR] * 2.0 - 1.0
    u = tf.where(chosen[:, None], u, 0.0)
    return (
        u[:, 0] * policy.brightness,
        1.0 + u[:, 1] * policy.contrast,
        1.0 + u[:, 2] * policy.saturation,
        u[:, 3] * policy.hue,
    )


def color_matrices(
    policy: ViewPolicy, params: tf.Tensor, means: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns jitter and grayscale without clipping in between: pixel -> matrix @ pixel + offset.

    Saturation and hue are the linear ones, which keep the mean of the three channels. They commute
    with each other, with contrast (about the channel's mean, which they carry along, or about zero)
    and with brightness (a grey offset, which they leave as it is). Contrast about the mean commutes
    with brightness too, so that the result is the same in each of the 24 orders; contrast about
    zero scales the offset if it comes after it.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        means: float32 `[N, channels]`, the channels' means of the crop.

    Returns:
        float32 matrix `[N, 3, 3]`, or factor `[N, 1, 1]` of channels that aren't three; and offset
        `[N, channels]`.
    """
    channels = means.shape[1]
    brightness, contrast, saturation, hue_shift = _jitter_amounts(policy, params)
    if channels == 3:
        angle = hue_shift * 2.0 * math.pi
        mean, difference, rotation = (
            tf.constant(matrix, tf.float32) for matrix in (_MEAN, _DIFFERENCE, _ROTATION)
        )
        matrix = (
            mean
            + (saturation * tf.cos(angle))[:, None, None] * difference
            + (saturation * tf.sin(angle))[:, None, None] * rotation
        )
        means = tf.linalg.matvec(matrix, means)
    else:
        matrix = tf.ones((1, 1, 1))
    if policy.contrast_center == "mean":
        offset = (1.0 - contrast)[:, None] * means + brightness[:, None]
    else:
        brightness_first = params[:, ORDER][:, 0] < params[:, ORDER][:, 1]
        offset = brightness * tf.where(brightness_first, contrast, 1.0)
        offset = offset[:, None] * tf.ones((1, channels))
    matrix *= contrast[:, None, None]
    if channels != 3:
        return matrix, offset
    gray = (params[:, GRAYSCALE] < policy.grayscale_probability)[:, None]
    gray_row = tf.reduce_sum(GRAY_WEIGHTS[:, None] * matrix, axis=1, keepdims=True)
    gray_offset = tf.reduce_sum(GRAY_WEIGHTS * offset, axis=1, keepdims=True)
    return tf.where(gray[:, None], gray_row, matrix), tf.where(gray, gray_offset, offset)


def apply_color(
    lines: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor, offset_scale: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns matrix @ pixel + offset for lines `[N, H, channels, W]`.

    Args:
        lines: float32 `[N, H, channels, W]`.
        matrix: of `color_matrices`.
        offset: likewise.
        offset_scale: float32 `[N, H, 1, W]`, a factor of the offset at each pixel.
    """
    offset = offset[:, None, :, None]
    if offset_scale is not None:
        offset *= offset_scale
    if lines.shape[2] != 3:
        return matrix[:, None] * lines + offset
    return (
        sum(matrix[:, None, :, channel, None] * lines[:, :, channel, None] for channel in range(3))
        + offset
    )


def clipped_color(policy: ViewPolicy, params: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
    """Applies jitter in each image's order and grayscale, clipped to [0, 1] after each operation.

    Saturation and hue are those of HSV, as in host views.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        lines: float32 `[N, H, channels, W]` in [0, 1].

    Returns:
        The same shape, dtype and range. Every image goes through every operation in each of the
        four rounds, by an amount that changes nothing but in the operation's own round.
    """
    if policy.jitter_probability > 0.0:
        amounts = _jitter_amounts(policy, params)
        keys = params[:, ORDER]
        ranks = tf.reduce_sum(tf.cast(keys[:, None, :] < keys[:, :, None], tf.int32), axis=2)
        for round_index in range(4):
            applied = ranks == round_index
            round_amounts = [
                tf.where(applied[:, i], amounts[i], _NO_JITTER[i])[:, None, None] for i in range(4)
            ]
            lines = _jitter_round(policy, lines, *round_amounts)
    if policy.grayscale_probability > 0.0 and lines.shape[2] == 3:
        gray = (params[:, GRAYSCALE] < policy.grayscale_probability)[:, None, None, None]
        luma = tf.reduce_sum(GRAY_WEIGHTS[:, None] * lines, axis=2, keepdims=True)
        lines = tf.where(gray, luma, lines)
    return lines


def _jitter_round(
    policy: ViewPolicy,
    lines: tf.Tensor,
    brightness: tf.Tensor,
    contrast: tf.Tensor,
    saturation: tf.Tensor,
    hue_shift: tf.Tensor,
) -> tf.Tensor:
    """Applies brightness, contrast, then saturation and hue, each by `[N, 1, 1]`.

    At most one of them changes an image.
    """
    center = 0.0
    if policy.contrast_center == "mean":
        center = tf.reduce_mean(lines, axis=(1, 3), keepdims=True)
    lines = center + contrast[..., None] * (lines - center) + brightness[..., None]
    lines = tf.clip_by_value(lines, 0.0, 1.0)
    if lines.shape[2] != 3:
        return lines
    red, green, blue = tf.unstack(lines, axis=2)
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    divisor = tf.where(chroma > 0.0, chroma, 1.0)
    low = value - tf.minimum(chroma * saturation, value)  # a saturation of at most 1
    # The hue in sixths of the circle, as in colorsys.rgb_to_hsv.
    in_blue = 4.0 + (red - green) / divisor
    sixths = tf.where(
        value == red,
        (green - blue) / divisor,
        tf.where(value == green, 2.0 + (blue - red) / divisor, in_blue),
    )
    sixths += 6.0 * hue_shift
    sixths -= 6.0 * tf.floor(sixths / 6.0)
    # Each channel rises and falls along the circle, its share of the range [low, value] clipped.
    shares = tf.abs(sixths - 3.0) - 1.0, 2.0 - tf.abs(sixths - 2.0), 2.0 - tf.abs(sixths - 4.0)
    return tf.stack(
        [low + (value - low) * tf.clip_by_value(share, 0.0, 1.0) for share in shares], axis=2
    )
