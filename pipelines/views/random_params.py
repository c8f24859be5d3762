"""What is drawn for a view: 48 uniform numbers of each image and view, which of them each operation
takes, and the crop's box.

Every engine makes its views from these, so they crop the same boxes and change the same images by
the same amounts.
"""

import math

import tensorflow as tf

from pipelines.policy import ViewPolicy

PARAMS_PER_VIEW = 48
"""Random numbers reserved for an image and view; a multiple of 4, which is what one step of the
counter yields."""
CROP, FLIP, JITTER, COLOUR, ORDER, GRAY, BLUR, SOLARIZE, PERSPECTIVE, PATCHES = (
    0,
    4,
    5,
    6,
    10,
    14,
    15,
    17,
    18,
    27,
)
"""Where each operation's numbers begin: crop 4, flip 1, jitter 1, colour 4, order 4, gray 1, blur
2, solarize 1, perspective 9, patches 14.
"""


def sample_params(seed: tuple[int, int], epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
    """Uniform numbers in [0, 1) for each image.

    Args:
        seed: two ints: the run's seed and the view's number.
        epoch: int64 scalar.
        positions: int64 `[N]`, consecutive: the images' positions in the epoch.

    Returns:
        float32 `[N, 48]`. A row depends on (seed, epoch, position) alone, not on N.
    """
    key_seed = tf.random.experimental.stateless_fold_in(tf.constant(seed, tf.int64), epoch)
    philox = tf.random.Algorithm.PHILOX.value
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=key_seed)
    # A counter step yields four numbers, so image p begins p * 48 / 4 steps on.
    ahead = tf.cast(positions[0] * (PARAMS_PER_VIEW // 4), tf.uint64)
    counter = tf.stack([counter[0] + ahead, counter[1]])
    return tf.raw_ops.StatelessRandomUniformV2(
        shape=[tf.size(positions), PARAMS_PER_VIEW],
        key=key,
        counter=counter,
        alg=philox,
        dtype=tf.float32,
    )


def lerp(uniform, low, high):
    return low + uniform * (high - low)


def crop_boxes(policy: ViewPolicy, draws: tf.Tensor, height, width) -> tf.Tensor:
    """Crop boxes for images of `height` x `width` pixels.

    Returns:
        float32 `[N, 4]`: y1, x1, y2, x2 as fractions of the image. Area uniform, aspect
        log-uniform; a box that is higher or wider than the image is cut to it (torchvision and
        deepmind-research first draw others).
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    u = draws[:, CROP : CROP + 4]
    area = lerp(u[:, 0], *policy.crop_area) * height * width
    aspect = tf.exp(lerp(u[:, 1], *(math.log(a) for a in policy.crop_aspect)))
    box_height = tf.minimum(tf.sqrt(area / aspect), height)
    box_width = tf.minimum(tf.sqrt(area * aspect), width)
    if policy.crop_area[0] == 1.0:
        # The whole image has one aspect: what is asked for is its largest box of the drawn aspect.
        box_height = tf.minimum(height, width / aspect)
        box_width = box_height * aspect
    y = u[:, 2] * (height - box_height)
    x = u[:, 3] * (width - box_width)
    if policy.crop_area == (1.0, 1.0) and policy.crop_aspect == (1.0, 1.0):
        y, x = (height - box_height) / 2.0, (width - box_width) / 2.0
    return tf.stack(
        [y / height, x / width, (y + box_height) / height, (x + box_width) / width], axis=1
    )


def pixel_boxes(
    policy: ViewPolicy, draws: tf.Tensor, height: tf.Tensor, width: tf.Tensor
) -> tf.Tensor:
    """`crop_boxes` to the nearest whole pixel, for photos that are cropped one by one.

    Returns:
        int32 `[N, 4]`: y1, x1, y2, x2; each box holds at least a pixel, of images of a few pixels
        too.
    """
    boxes = crop_boxes(policy, draws, height, width) * tf.cast(
        tf.stack([height, width, height, width]), tf.float32
    )
    y1, x1, y2, x2 = tf.unstack(tf.cast(tf.round(boxes), tf.int32), axis=1)
    y1, x1 = tf.minimum(y1, height - 1), tf.minimum(x1, width - 1)
    return tf.stack([y1, x1, tf.maximum(y2, y1 + 1), tf.maximum(x2, x1 + 1)], axis=1)
