"""Random parameters of views: 48 uniform numbers per image and view, and the crop box they give.

Every engine makes its views from these numbers, so all of them crop the same boxes and change the
same images by the same amounts.
"""

import math

import tensorflow as tf

from pipelines.policy import ViewPolicy

PARAMS_PER_VIEW = 48
"""Uniform numbers of an image and view; a multiple of 4, which is what a step of Philox yields."""

CROP = slice(0, 4)  # area, aspect, y, x
FLIP = 4
JITTER = 5
COLOR = slice(6, 10)  # amounts of brightness, contrast, saturation, hue
ORDER = slice(10, 14)  # the four colour operations are applied in ascending order of these
GRAYSCALE = 14
BLUR = 15
BLUR_SIGMA = 16
SOLARIZE = 17
PERSPECTIVE = 18
CORNERS = slice(19, 27)  # x and y of four corners
PATCH_DROP = 27
PATCHES = slice(28, 40)  # height, width, y, x of three rectangles
CHANNEL_DROP = slice(40, 48)  # two channels each


def sample_params(seed: int, view_count: int, epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Samples the parameters of all views of some images.

    Args:
        seed: the run's seed.
        view_count: number of views of each image.
        epoch: int64 scalar.
        positions: int64 `[N]`, consecutive: the images' positions in the epoch.

    Returns:
        float32 `[N, view_count, 48]` in [0, 1). Each entry is a function of (seed, view, epoch,
        position) alone: neither of N nor of where the batch begins.
    """
    views = [_sample_view((seed, view), epoch, positions) for view in range(view_count)]
    return tf.stack(views, axis=1)


def _sample_view(seed: tuple[int, int], epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Returns float32 `[N, 48]`: Philox4x32-10, keyed by (seed, view, epoch), counting positions.

    `tf.random.stateless_uniform` would begin at position 0. Its two raw operations let the counter
    begin at any position, so that nothing is generated only to be thrown away.
    """
    epoch_seed = tf.random.experimental.stateless_fold_in(tf.constant(seed, tf.int64), epoch)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=epoch_seed)
    first_step = tf.cast(positions[0] * (PARAMS_PER_VIEW // 4), tf.uint64)
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[tf.size(positions), PARAMS_PER_VIEW],
        key=key,
        counter=tf.stack([counter[0] + first_step, counter[1]]),
        alg=tf.random.Algorithm.PHILOX.value,
        dtype=tf.float32,
    )


def lerp(uniform: tf.Tensor, low: float, high: float) -> tf.Tensor:
    """Maps numbers in [0, 1) to [low, high)."""
    return low + uniform * (high - low)


def dropped_channels(policy: ViewPolicy, params: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns which channels of each image turn black, bool `[N, channels]`.

    Channels from the ninth on have the lower bits of the first ones' numbers, which are as random.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        channels: 1 to 16.
    """
    high = params[:, CHANNEL_DROP]
    low = high * 2.0**12
    uniform = tf.concat([high, low - tf.floor(low)], axis=1)
    return uniform[:, :channels] < policy.channel_drop_probability


def crop_boxes(
    policy: ViewPolicy, params: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Returns the crop boxes of images of `height` x `width` pixels.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        float32 `[N, 4]`: y1, x1, y2, x2 as fractions of the image. Area is uniform, aspect
        log-uniform; a box that is higher or wider than the image is cut to it, as in
        deepmind-research (`byol/utils/dataset.py`, `_decode_and_random_crop`). torchvision first
        samples up to ten other boxes.
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    uniform = params[:, CROP]
    area = lerp(uniform[:, 0], *policy.crop_area) * height * width
    aspect = tf.exp(lerp(uniform[:, 1], *(math.log(limit) for limit in policy.crop_aspect)))
    box_height = tf.minimum(tf.sqrt(area / aspect), height)
    box_width = tf.minimum(tf.sqrt(area * aspect), width)
    if policy.crop_area[0] == 1.0:
        # No box of another aspect has the area of the whole image: take the largest that fits.
        box_height = tf.minimum(height, width / aspect)
        box_width = box_height * aspect
    y = uniform[:, 2] * (height - box_height)
    x = uniform[:, 3] * (width - box_width)
    if policy.crop_area == (1.0, 1.0) and policy.crop_aspect == (1.0, 1.0):
        y, x = (height - box_height) / 2.0, (width - box_width) / 2.0
    return tf.stack(
        [y / height, x / width, (y + box_height) / height, (x + box_width) / width], axis=1
    )


def pixel_boxes(
    policy: ViewPolicy, params: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """Returns `crop_boxes` rounded to pixels, for photos that are cropped one by one.

    Args:
        policy: the view's policy.
        params: float32 `[N, 48]`.
        height: int32 scalar, in pixels.
        width: int32 scalar, in pixels.

    Returns:
        int32 `[N, 4]`: y1, x1, y2, x2. Each box holds at least one pixel.
    """
    boxes = crop_boxes(policy, params, height, width) * tf.cast(
        tf.stack([height, width, height, width]), tf.float32
    )
    y1, x1, y2, x2 = tf.unstack(tf.cast(tf.round(boxes), tf.int32), axis=1)
    y1, x1 = tf.minimum(y1, height - 1), tf.minimum(x1, width - 1)
    return tf.stack([y1, x1, tf.maximum(y2, y1 + 1), tf.maximum(x2, x1 + 1)], axis=1)
