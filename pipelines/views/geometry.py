"""Geometry of views: crop, flip, resize and blur as matrices; perspective; dropped patches.

Images are lines, `[N, height, channels, width]`: a product from either side is then one matrix
product per image, without a transposition in between. Every function has static shapes and uses
operations that XLA has on every device.
"""

import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views.random_params import (
    BLUR,
    BLUR_SIGMA,
    CORNERS,
    FLIP,
    PATCH_DROP,
    PATCHES,
    PERSPECTIVE,
    crop_boxes,
    lerp,
)

INTERPOLATIONS = ("bilinear", "bicubic")
_PATCH_COUNT = 3


def crop_matrices(
    policy: ViewPolicy, params: tf.Tensor, shape: tuple[int, int], size: int, interpolation: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the matrices that crop, flip and resize images to `size` x `size`.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        shape: height and width of the images.
        size: side of the view in pixels.
        interpolation: "bilinear" or "bicubic" (Keys, a = -0.5, as `tf.image.resize`). Both are
            antialiased: where the view is smaller than the box, the kernel is as wide as a step.

    Returns:
        float32 rows `[N, size, height]` and columns `[N, size, width]`; each of their rows adds up
        to 1. Samples near the box's edge look beyond it, into the image.
    """
    boxes = crop_boxes(policy, params, *shape)
    flip = params[:, FLIP] < policy.flip_probability
    rows = _axis_matrix(
        boxes[:, 0], boxes[:, 2], tf.zeros_like(flip), shape[0], size, interpolation
    )
    return rows, _axis_matrix(boxes[:, 1], boxes[:, 3], flip, shape[1], size, interpolation)


def _axis_matrix(
    low: tf.Tensor, high: tf.Tensor, flip: tf.Tensor, length: int, size: int, interpolation: str
) -> tf.Tensor:
    """Returns float32 `[N, size, length]`, which resamples one axis of the boxes [low, high]."""
    step = (high - low) * (length / size)
    cells = tf.range(size, dtype=tf.float32) + 0.5
    cells = tf.where(flip[:, None], size - cells, cells)
    centres = low[:, None] * length + cells * step[:, None] - 0.5
    distance = tf.range(length, dtype=tf.float32) - centres[..., None]
    distance = tf.abs(distance) / tf.maximum(step, 1.0)[:, None, None]
    weights = tf.nn.relu(1.0 - distance)
    if interpolation == "bicubic":
        # Keys' piecewise cubic, written with clipped powers: no case distinction.
        outer = tf.nn.relu(2.0 - distance)
        weights = 0.5 * tf.square(outer) * (outer - 1.0) + tf.square(weights) * (
            1.0 - 2.0 * weights
        )
    return weights * (1.0 / tf.reduce_sum(weights, axis=2, keepdims=True))


def blur_taps(policy: ViewPolicy, params: tf.Tensor, size: int) -> tf.Tensor:
    """Returns each image's Gaussian kernel, float32 `[N, policy.kernel_size(size)]`.

    It is a one between zeros where the image isn't blurred.
    """
    sigma = lerp(params[:, BLUR_SIGMA], *policy.blur_sigma)[:, None]
    radius = policy.kernel_size(size) // 2
    offset = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-tf.square(offset) / (2.0 * tf.square(sigma)))
    blurred = params[:, BLUR, None] < policy.blur_probability
    return tf.where(
        blurred,
        taps / tf.reduce_sum(taps, axis=1, keepdims=True),
        tf.cast(offset == 0.0, tf.float32),
    )


def blur(values: tf.Tensor, taps: tf.Tensor, axis: int) -> tf.Tensor:
    """Blurs float32 `[N, ...]` along one axis with each image's kernel `[N, T]`, zero-padded.

    It is a sum of shifted copies, which XLA computes in one pass.
    """
    rank, size, radius = values.shape.rank, values.shape[axis], taps.shape[1] // 2
    padded = tf.pad(values, [(radius, radius) if i == axis else (0, 0) for i in range(rank)])
    total = 0.0
    for tap in range(taps.shape[1]):
        shifted = padded[(slice(None),) * axis + (slice(tap, tap + size),)]
        total += tf.reshape(taps[:, tap], (-1, *(1,) * (rank - 1))) * shifted
    return total


def resample(lines: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Resamples lines `[N, H, C, W]` by rows `[N, S, H]` and columns `[N, S, W]` of their dtype.

    Returns:
        Lines `[N, S, C, S]`.
    """
    _, height, channels, width = lines.shape
    size = rows.shape[1]
    across = tf.matmul(tf.reshape(lines, (-1, height * channels, width)), columns, transpose_b=True)
    return tf.reshape(
        tf.matmul(rows, tf.reshape(across, (-1, height, channels * size))),
        (-1, size, channels, size),
    )


def perspective_matrices(policy: ViewPolicy, params: tf.Tensor, size: int) -> tf.Tensor:
    """Returns a perspective for each image, whether or not the image is to have one.

    Each corner of the view moves inwards by up to distortion x half the side, and the view with it
    (Kornia's `RandomPerspective`).

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        size: side of the views in pixels.

    Returns:
        float32 `[N, 3, 3]`: (x, y, 1) of a pixel of the result -> homogeneous coordinates of the
        pixel that it shows, as fractions of size - 1.
    """
    inwards = tf.constant([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    moves = tf.reshape(params[:, CORNERS], (-1, 4, 2)) * policy.perspective_distortion * size / 2.0
    corners = tf.constant([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) * (size - 1.0)
    return _to_unit_square(corners + moves * inwards)


def warp(policy: ViewPolicy, params: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
    """Applies a random perspective to the images that have one: see `perspective_matrices`.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        lines: float `[N, S, channels, S]`.

    Returns:
        The same shape and dtype; bilinear, black outside the view. A perspective isn't separable,
        so it is four gathers and not a product.
    """
    _, size, channels, _ = lines.shape
    steps = tf.range(size, dtype=tf.float32)
    x, y = tf.meshgrid(steps, steps)
    points = tf.reshape(tf.stack([x, y, tf.ones_like(x)], axis=-1), (-1, 3))
    source = tf.matmul(points, perspective_matrices(policy, params, size), transpose_b=True)
    source = source[..., :2] / source[..., 2:] * (size - 1.0)
    # Far outside is as black as just outside, and stays a number that fits an index.
    source = tf.clip_by_value(source, -2.0, size + 1.0)
    corner = tf.floor(source)
    fraction = source - corner
    pixels = tf.reshape(tf.transpose(lines, (0, 1, 3, 2)), (-1, size * size, channels))
    total = 0.0
    for right in (0, 1):
        for down in (0, 1):
            column, row = corner[..., 0] + right, corner[..., 1] + down
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            weight = (fraction[..., 0] if right else 1.0 - fraction[..., 0]) * (
                fraction[..., 1] if down else 1.0 - fraction[..., 1]
            )
            index = tf.cast(tf.where(inside, row * size + column, 0.0), tf.int32)
            weight = tf.cast(tf.where(inside, weight, 0.0), lines.dtype)
            total += weight[..., None] * tf.gather(pixels, index, axis=1, batch_dims=1)
    warped = tf.transpose(tf.reshape(total, (-1, size, size, channels)), (0, 1, 3, 2))
    chosen = params[:, PERSPECTIVE] < policy.perspective_probability
    return tf.where(chosen[:, None, None, None], warped, lines)


def _to_unit_square(corners: tf.Tensor) -> tf.Tensor:
    """Returns projective matrices `[N, 3, 3]` that take corners to those of the unit square.

    The opposite direction has a closed form (Heckbert, Fundamentals of Texture Mapping and Image
    Warping, 1989, section 2.2.3). The inverse of a projective matrix is its adjugate, whose rows
    are cross products of its columns.

    Args:
        corners: float32 `[N, 4, 2]`: x and y, clockwise from the top left.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (
        tf.unstack(corner, axis=1) for corner in tf.unstack(corners, axis=1)
    )
    dx1, dx2, sx = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, sy = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (sx * dy2 - dx2 * sy) / area, (dx1 * sy - sx * dy1) / area
    first = tf.stack([x1 - x0 + g * x1, y1 - y0 + g * y1, g], axis=1)
    second = tf.stack([x3 - x0 + h * x3, y3 - y0 + h * y3, h], axis=1)
    third = tf.stack([x0, y0, tf.ones_like(x0)], axis=1)
    return tf.stack(
        [
            tf.linalg.cross(second, third),
            tf.linalg.cross(third, first),
            tf.linalg.cross(first, second),
        ],
        axis=1,
    )


def dropped_pixels(policy: ViewPolicy, params: tf.Tensor, size: int) -> tf.Tensor:
    """Returns which pixels lie in one of the three rectangles that turn black.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        size: side of the views in pixels.

    Returns:
        bool `[N, size, size]`; all False for an image without dropped patches.
    """
    dropped = params[:, PATCH_DROP] < policy.patch_drop_probability
    uniform = tf.reshape(params[:, PATCHES], (-1, _PATCH_COUNT, 4))
    height = lerp(uniform[..., 0], *policy.patch_drop_side)
    width = lerp(uniform[..., 1], *policy.patch_drop_side)
    top, left = uniform[..., 2] * (1.0 - height), uniform[..., 3] * (1.0 - width)
    centres = (tf.range(size, dtype=tf.float32) + 0.5) / size
    rows = (centres >= top[..., None]) & (centres < (top + height)[..., None])
    columns = (centres >= left[..., None]) & (centres < (left + width)[..., None])
    covered = tf.reduce_any(rows[:, :, :, None] & columns[:, :, None, :], axis=1)
    return covered & dropped[:, None, None]
