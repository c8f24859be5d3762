"""Where each pixel of a view comes from: crop, flip, resize and blur as matrices, one per image and
axis; perspective and dropped patches.

Images are held as lines, `[N, height, 3, width]`: then a product from either side is one matrix
product per image, without a turn in between. Every function has static shapes and uses operations
that XLA has on every device.
"""

import math

import tensorflow as tf

from pipelines.policy import ViewPolicy, kernel_size
from pipelines.views import random_params as draws_of
from pipelines.views.random_params import crop_boxes, lerp

INTERPOLATIONS = ("bilinear", "bicubic")
_PATCHES_AT_MOST = 3


def crop_matrices(
    policy: ViewPolicy, draws: tf.Tensor, shape: tuple[int, int], size: int, interpolation: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Crop, flip and resize to `size` x `size`.

    Args:
        policy: what a view is.
        draws: float32 `[N, 48]`, an image's random numbers.
        shape: height and width of the images.
        size: side of the view in pixels.
        interpolation: `bilinear` or `bicubic` (Keys, a = -0.5, as `tf.image.resize`); both are
            antialiased, that is: the kernel widens with the step where the view is smaller than the
            box.

    Returns:
        float32 rows `[N, size, height]` and columns `[N, size, width]`; each of their rows adds up
        to 1. Samples near the box's edge look beyond it, into the image.
    """
    boxes = crop_boxes(policy, draws, *shape)
    flip = draws[:, draws_of.FLIP] < policy.flip_probability
    rows = _axis_matrix(
        boxes[:, 0], boxes[:, 2], tf.zeros_like(flip), shape[0], size, interpolation
    )
    return rows, _axis_matrix(boxes[:, 1], boxes[:, 3], flip, shape[1], size, interpolation)


def _axis_matrix(low, high, flip, length, size, interpolation):
    step = (high - low) * (length / size)
    place = tf.range(size, dtype=tf.float32) + 0.5
    place = tf.where(flip[:, None], size - place, place)
    centres = low[:, None] * length + place * step[:, None] - 0.5
    distance = tf.range(length, dtype=tf.float32) - centres[..., None]
    distance = tf.abs(distance) / tf.maximum(step, 1.0)[:, None, None]
    weights = tf.nn.relu(1.0 - distance)
    if interpolation == "bicubic":
        # Keys' kernel in powers that end by themselves: no case distinction.
        outer = tf.nn.relu(2.0 - distance)
        weights = 0.5 * tf.square(outer) * (outer - 1.0) + tf.square(weights) * (
            1.0 - 2.0 * weights
        )
    return weights * (1.0 / tf.reduce_sum(weights, axis=2, keepdims=True))


def blur_taps(policy: ViewPolicy, draws: tf.Tensor, size: int) -> tf.Tensor:
    """float32 `[N, kernel_size(size)]`: each image's Gaussian; a one between zeros where the image
    isn't blurred."""
    sigma = lerp(draws[:, draws_of.BLUR + 1], *policy.blur_sigma)[:, None]
    radius = kernel_size(size) // 2
    place = tf.range(-radius, radius + 1, dtype=tf.float32)
    taps = tf.exp(-tf.square(place) / (2.0 * tf.square(sigma)))
    blurred = draws[:, draws_of.BLUR, None] < policy.blur_probability
    return tf.where(
        blurred,
        taps / tf.reduce_sum(taps, axis=1, keepdims=True),
        tf.cast(place == 0.0, tf.float32),
    )


def blur(values: tf.Tensor, taps: tf.Tensor, axis: int) -> tf.Tensor:
    """Float32 `[N, ...]` of any shape blurred along one axis with its image's taps `[N, T]`, zeros
    beyond the edge.

    A sum of shifted copies, which XLA computes in one pass.
    """
    rank, size, radius = values.shape.rank, values.shape[axis], taps.shape[1] // 2
    padded = tf.pad(values, [(radius, radius) if i == axis else (0, 0) for i in range(rank)])
    total = 0.0
    for number in range(taps.shape[1]):
        shifted = padded[(slice(None),) * axis + (slice(number, number + size),)]
        total += tf.reshape(taps[:, number], (-1, *(1,) * (rank - 1))) * shifted
    return total


def resample(lines: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Lines `[N, H, 3, W]`, rows `[N, S, H]`, columns `[N, S, W]`, all of one dtype -> lines `[N,
    S, 3, S]`."""
    _, height, channels, width = lines.shape
    size = rows.shape[1]
    across = tf.matmul(tf.reshape(lines, (-1, height * channels, width)), columns, transpose_b=True)
    return tf.reshape(
        tf.matmul(rows, tf.reshape(across, (-1, height, channels * size))),
        (-1, size, channels, size),
    )


def warp(policy: ViewPolicy, draws: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
    """A random perspective of the images that drew one: each corner moves inwards by up to
    distortion x half the side, and the view with it.

    Args:
        policy: what a view is.
        draws: float32 `[N, 48]`.
        lines: float `[N, S, 3, S]`.

    Returns:
        The same shape and dtype; bilinear, black where the view has left. It isn't separable, so it
        is four gathers and not a product.
    """
    size = lines.shape[1]
    moves = (
        tf.reshape(draws[:, draws_of.PERSPECTIVE + 1 : draws_of.PERSPECTIVE + 9], (-1, 4, 2))
        * policy.perspective_distortion
        * size
        / 2.0
    )
    inwards = tf.constant([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    chosen = draws[:, draws_of.PERSPECTIVE] < policy.perspective_probability
    moves = tf.where(chosen[:, None, None], moves * inwards, 0.0)
    corners = tf.constant([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]) * (size - 1.0) + moves
    place = tf.range(size, dtype=tf.float32)
    x, y = tf.meshgrid(place, place)
    points = tf.reshape(tf.stack([x, y, tf.ones_like(x)], axis=-1), (-1, 3))
    source = tf.matmul(points, _to_unit_square(corners), transpose_b=True)
    source = source[..., :2] / source[..., 2:] * (size - 1.0)
    # Far outside is as black as just outside, and stays a number that fits an index.
    source = tf.clip_by_value(source, -2.0, size + 1.0)
    whole = tf.floor(source)
    share = source - whole
    pixels = tf.reshape(tf.transpose(lines, (0, 1, 3, 2)), (-1, size * size, 3))
    total = 0.0
    for right in (0, 1):
        for down in (0, 1):
            column, row = whole[..., 0] + right, whole[..., 1] + down
            inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
            weight = (share[..., 0] if right else 1.0 - share[..., 0]) * (
                share[..., 1] if down else 1.0 - share[..., 1]
            )
            index = tf.cast(tf.where(inside, row * size + column, 0.0), tf.int32)
            weight = tf.cast(tf.where(inside, weight, 0.0), lines.dtype)
            total += weight[..., None] * tf.gather(pixels, index, axis=1, batch_dims=1)
    warped = tf.transpose(tf.reshape(total, (-1, size, size, 3)), (0, 1, 3, 2))
    return tf.where(chosen[:, None, None, None], warped, lines)


def _to_unit_square(corners):
    """Projective matrices `[N, 3, 3]` that take the corners `[N, 4, 2]` (x, y; clockwise from the
    top left) to those of the unit square.

    The other way round they have a closed form (Heckbert, Fundamentals of Texture Mapping and Image
    Warping, 1989, section 2.2.3); the inverse of a projective matrix is its adjugate, whose rows
    are cross products of its columns.
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


def dropped_pixels(policy: ViewPolicy, draws: tf.Tensor, size: int) -> tf.Tensor:
    """bool `[N, size, size]`: the pixels that lie in one of the 1 to 3 rectangles which turn black,
    in the images that drew some."""
    u = draws[:, draws_of.PATCHES : draws_of.PATCHES + 14]
    count = tf.where(
        u[:, 0] < policy.patch_drop_probability, 1.0 + tf.floor(u[:, 13] * _PATCHES_AT_MOST), 0.0
    )
    u = tf.reshape(u[:, 1:13], (-1, _PATCHES_AT_MOST, 4))
    area = lerp(u[..., 0], *policy.patch_drop_area)
    aspect = tf.exp(lerp(u[..., 1], math.log(0.5), math.log(2.0)))
    height, width = tf.minimum(tf.sqrt(area / aspect), 1.0), tf.minimum(tf.sqrt(area * aspect), 1.0)
    top, left = u[..., 2] * (1.0 - height), u[..., 3] * (1.0 - width)
    used = tf.range(float(_PATCHES_AT_MOST)) < count[:, None]
    centres = (tf.range(size, dtype=tf.float32) + 0.5) / size
    rows = (centres >= top[..., None]) & (centres < (top + height)[..., None]) & used[..., None]
    columns = (centres >= left[..., None]) & (centres < (left + width)[..., None])
    return tf.reduce_any(rows[:, :, :, None] & columns[:, :, None, :], axis=1)
