"""Random crops with flips of labelled images, to train classifiers on (BYOL paper, appendix C)."""

import math

import tensorflow as tf

from pipelines.batches import crop_batches, image_batches
from pipelines.policy import ViewPolicy
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.views.fused import FusedViews

CROP_AND_FLIP = ViewPolicy(jitter_probability=0.0, grayscale_probability=0.0, blur_probability=0.0)
# mean and std that leave pixels in [0, 255]
_MEAN, _STD = (0.0, 0.0, 0.0), (1.0 / 255.0, 1.0 / 255.0, 1.0 / 255.0)


def even_batch_size(count: int, largest: int) -> int:
    """Divides an epoch into batches of at most `largest` images, with few images left over."""
    return count // math.ceil(count / largest)


def labelled_batches(images: Images, size: int, batch_size: int, seed: int) -> tf.data.Dataset:
    """Returns endless batches for `crop_layer`, with the index of each image.

    Args:
        images: with labels.
        size: side of a crop in pixels.
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
    def batch_indices(step: tf.Tensor) -> tf.Tensor:
        return order.at(step)[2]

    # The order is a function of the step, so the indices can be computed beside batches that carry
    # none.
    indices = tf.data.Dataset.range(tf.int64.max).map(batch_indices)
    return tf.data.Dataset.zip(pixels, indices).map(lambda batch, indices: (*batch, indices))


def crop_layer(images: Images, size: int) -> FusedViews:
    """Returns a layer from (pixels, params) of `labelled_batches` to crops.

    The crops are float32 `[N, size, size, 3]` in [0, 255].
    """
    policy = CROP_AND_FLIP if images.shape is not None else CROP_AND_FLIP.without_crop()
    return FusedViews(policy, size, 0, _MEAN, _STD, dtype="float32")
