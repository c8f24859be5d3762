"""Crops of labelled images: random ones with flips to train on, the centre to test on.

BYOL paper, appendix C.1.
"""

import math

import numpy as np
import tensorflow as tf

from pipelines.batches import crop_batches, image_batches
from pipelines.policy import ViewPolicy, preset
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.sources.pixels import white
from pipelines.views.fused import FusedViews
from pipelines.views.host_crops import resize_crop

CROP_AND_FLIP = ViewPolicy(jitter_probability=0.0, grayscale_probability=0.0, blur_probability=0.0)
NO_AUGMENTATION = preset("none")[0]
TEST_CROP = 224 / 256
"""Side of the papers' test crop as a fraction of the image's shorter side: 224 of 256 px."""


def even_batch_size(count: int, largest: int) -> int:
    """Returns a batch size of at most `largest` with which few images of an epoch are left over."""
    return count // math.ceil(count / largest)


def labelled_batches(
    images: Images, size: int, batch_size: int, seed: int, policy: ViewPolicy = CROP_AND_FLIP
) -> tf.data.Dataset:
    """Returns endless batches for `crop_layer`, with the index of each image.

    Args:
        images: with labels.
        size: side of a crop in pixels.
        batch_size: at most the number of images.
        seed: decides order and crops.
        policy: of the crops.

    Returns:
        A dataset of (images or crops `[N, H, W, channels]` of their dtype, params float32
        `[N, 1, 48]`, indices int64 `[N]`).
    """
    if images.shape is None:
        pixels = crop_batches(images, (policy,), size, batch_size, seed)
    else:
        pixels = image_batches(images, batch_size, seed, view_count=1)
    order = Order(len(images), batch_size, seed, blocks=images.blocks)

    @tf.autograph.experimental.do_not_convert
    def batch_indices(step: tf.Tensor) -> tf.Tensor:
        return order.at(step)[2]

    # The order is a function of the step, so the indices can be computed beside batches that carry
    # none.
    indices = tf.data.Dataset.range(tf.int64.max).map(batch_indices)
    return tf.data.Dataset.zip(pixels, indices).map(lambda batch, indices: (*batch, indices))


def crop_layer(images: Images, size: int, policy: ViewPolicy = CROP_AND_FLIP) -> FusedViews:
    """Returns a layer from (pixels, params) of `labelled_batches` to crops.

    The crops are float32 `[N, size, size, channels]`, with values as the images have them.
    """
    policy = policy if images.shape is not None else policy.without_crop()
    mean, std = (0.0,) * images.channels, (1.0 / white(images.dtype),) * images.channels
    return FusedViews(policy, size, 0, mean, std, dtype="float32")


def centre_crop(images: np.ndarray, size: int, fraction: float = TEST_CROP) -> np.ndarray:
    """Cuts the centre of images and resizes it, bicubic and antialiased.

    Args:
        images: uint8 or uint16 `[N, H, W, channels]`.
        size: side of the result in pixels.
        fraction: side of the square that is cut, as a fraction of the shorter side.

    Returns:
        `[N, size, size, channels]` of the same type.
    """
    height, width = images.shape[1:3]
    side = round(fraction * min(height, width))
    top, left = (height - side) // 2, (width - side) // 2
    return resize_crop(images[:, top : top + side, left : left + side], size).numpy()
