"""Crops of photos of several sizes, made on the host: read, decode what the views need, resize.

Both views of an image are cut from one decoded region, the smallest that holds both boxes: two
regions of a JPEG would have the scan lines above and between them decoded twice.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.sources import Images
from pipelines.views.random_params import pixel_boxes

_MARGIN = 2
"""Pixels decoded around the region. A JPEG holds colours at half the resolution and interpolates
them from their neighbours; with these a region is what it would be in the complete picture."""


def read_crops(
    images: Images, index: tf.Tensor, policies: Sequence[ViewPolicy], params: tf.Tensor
) -> list[tf.Tensor]:
    """Reads the pixels in an image's crop boxes, one box for each view.

    Args:
        images: of any shapes.
        index: int64 scalar.
        policies: one for each view.
        params: float32 `[1, views, 48]`.

    Returns:
        `[h, w, channels]` of the images' dtype for each view, h and w at least 1.

    Raises:
        tf.errors.OpError: when it runs, if the image can't be read; the text says why.
    """
    shape = (None, None, images.channels)
    no_pixels = np.empty((0, 0, images.channels), images.dtype)

    def read(number: np.ndarray) -> tuple[bytes, np.ndarray]:
        data = images.encoded(int(number))
        return (b"", images[int(number)]) if data is None else (data, no_pixels)

    def cut(
        number: np.ndarray, data: bytes, pixels: np.ndarray, low: np.ndarray, high: np.ndarray
    ) -> np.ndarray:
        if data:
            try:
                return _decode_region(data, low, high)
            except tf.errors.InvalidArgumentError:  # Pillow reads more of the damaged files
                pixels = images[int(number)]
        return pixels[low[0] : high[0], low[1] : high[1]]

    data, pixels = tf.numpy_function(read, [index], (tf.string, images.dtype), stateful=False)
    data, pixels = tf.ensure_shape(data, ()), tf.ensure_shape(pixels, shape)
    is_jpeg = tf.strings.length(data) > 0
    height, width = tf.unstack(
        tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(data)[:2], lambda: tf.shape(pixels)[:2])
    )
    boxes = tf.concat(
        [
            pixel_boxes(policy, params[:, view], height, width)
            for view, policy in enumerate(policies)
        ],
        axis=0,
    )
    low = tf.maximum(tf.reduce_min(boxes[:, :2], axis=0) - _MARGIN, 0)
    high = tf.minimum(tf.reduce_max(boxes[:, 2:], axis=0) + _MARGIN, [height, width])
    region = tf.numpy_function(cut, [index, data, pixels, low, high], images.dtype, stateful=False)
    region = tf.ensure_shape(region, shape)
    boxes_in_region = tf.unstack(boxes - tf.tile(low, [2]))
    return [region[y1:y2, x1:x2] for y1, x1, y2, x2 in map(tf.unstack, boxes_in_region)]


def _decode_region(data: bytes, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Decodes a part of a JPEG, from (y, x) `low` to `high`: uint8 `[h, w, 3]`."""
    # The slower inverse DCT is Pillow's: pixels don't depend on who decodes.
    region = tf.io.decode_and_crop_jpeg(
        data, np.concatenate([low, high - low]), channels=3, dct_method="INTEGER_ACCURATE"
    )
    return region.numpy()


def resize_crop(crop: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes `[h, w, channels]` to `[size, size, channels]`, bicubic and antialiased.

    `FusedViews` resizes images of one size in the same way.
    """
    resized = tf.image.resize(crop, (size, size), "bicubic", antialias=True)
    return tf.saturate_cast(tf.round(resized), crop.dtype)
