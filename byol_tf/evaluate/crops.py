"""Random crops with flips of labelled images: what the papers' protocols train a classifier on
(BYOL paper, appendix C)."""

import math

import tensorflow as tf

from pipelines.batches import crop_batches, image_batches
from pipelines.policy import ViewPolicy
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.views.fused import FusedViews

CROP_AND_FLIP = ViewPolicy(jitter_probability=0.0, grayscale_probability=0.0, blur_probability=0.0)
_BLACK, _WHITE = (0.0, 0.0, 0.0), (1.0 / 255.0, 1.0 / 255.0, 1.0 / 255.0)


def batch_size_for(count: int, largest: int) -> int:
    """Images a batch, at most `largest`: equal parts of an epoch, so that few images are left out
    of it."""
    return count // math.ceil(count / largest)


def labelled_batches(images: Images, size: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Endless batches for `crop_layer`, with their labels.

    Args:
        images: with labels.
        size: side of a crop.
        batch_size: at most the number of images.
        seed: decides order and crops.

    Returns:
        A dataset of (images or crops uint8 `[N, H, W, 3]`, params float32 `[N, 1, 48]`, indices
        int64 `[N]`).
    """
    if images.shape is None:
        pixels = crop_batches(images, (CROP_AND_FLIP,), size, batch_size, seed)
    else:
        pixels = image_batches(images, batch_size, seed, view_count=1)
    order = Order(len(images), batch_size, seed)

    @tf.autograph.experimental.do_not_convert
    def indices(step):
        return order.at(step)[2]

    # Order is a function of the step, so the images' indices needn't travel with them through
    # batches that know no labels.
    where = tf.data.Dataset.range(tf.int64.max).map(indices)
    return tf.data.Dataset.zip(pixels, where).map(lambda batch, indices: (*batch, indices))


def crop_layer(images: Images, size: int) -> FusedViews:
    """From a batch of `labelled_batches` (pixels, params) to crops, float32 `[N, size, size, 3]` in
    [0, 255]."""
    policy = CROP_AND_FLIP if images.shape is not None else CROP_AND_FLIP.without_crop()
    return FusedViews(policy, size, 0, _BLACK, _WHITE, dtype="float32")
