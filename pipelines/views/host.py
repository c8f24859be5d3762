"""Views of images on the host, in tf.data: layers of Keras or keras-cv do the colour operations.

* The layers' jitter has one order and no probability; here each image has its own order.
* Their crop takes one image at a time; here the whole batch has its boxes at once.

Crops are resampled bilinearly (`tf.image.crop_and_resize`) where images have one size; photos of
several sizes are cropped one by one and resampled bicubically, as in deepmind-research.
"""

from collections.abc import Callable

import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views.geometry import blur_taps, dropped_pixels, perspective_matrices
from pipelines.views.host_colors import HostEngine, host_colors
from pipelines.views.random_params import (
    BLUR,
    COLOR,
    FLIP,
    GRAYSCALE,
    JITTER,
    ORDER,
    PATCH_DROP,
    PERSPECTIVE,
    SOLARIZE,
    crop_boxes,
    dropped_channels,
    pixel_boxes,
)

_Operation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class HostViews:
    """Makes one view of each image of a batch: a pure function of images and parameters.

    Args:
        policy: what the view is.
        size: side of the view in pixels.
        engine: whose layers do the colour operations, `keras` or `keras_cv`.

    Raises:
        ImportError: as `host_colors`.
    """

    def __init__(self, policy: ViewPolicy, size: int, engine: HostEngine = "keras") -> None:
        self.policy, self.size = policy, size
        self._colors = host_colors(engine)()

    def __call__(self, images: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Returns the views of images of one size.

        Args:
            images: uint8 or uint16 `[N, H, W, channels]`.
            params: float32 `[N, 48]`: this view's of `sample_params`.

        Returns:
            float32 `[N, size, size, channels]` in [0, 1].
        """
        return self.augment(self.crop(images, params), params)

    def crop(self, images: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Crops, flips and resizes to float32 `[N, size, size, channels]` in [0, 1].

        Args:
            images: uint8 or uint16 `[N, H, W, channels]`.
            params: float32 `[N, 48]`.
        """
        boxes = crop_boxes(self.policy, params, tf.shape(images)[1], tf.shape(images)[2])
        y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
        flip = self._flips(params)
        # One more edge pixel on each side: a sample outside the outermost centres takes the edge's
        # value, where crop_and_resize would give black.
        padded = tf.concat([images[:, :1], images, images[:, -1:]], axis=1)
        padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
        # crop_and_resize maps a box's ends to the centres of the first and last sample, so the box
        # shrinks by half an output pixel at each end.
        height, width = (
            tf.cast(side, tf.float32) for side in (tf.shape(images)[1], tf.shape(images)[2])
        )
        y1, y2 = _sample_range(y1, y2, height, self.size)
        x1, x2 = _sample_range(x1, x2, width, self.size)
        # A box whose ends are exchanged is sampled backwards: the flip costs nothing.
        boxes = tf.stack([y1, tf.where(flip, x2, x1), y2, tf.where(flip, x1, x2)], axis=1)
        views = tf.image.crop_and_resize(
            padded, boxes, tf.range(tf.shape(images)[0]), (self.size, self.size)
        )
        return tf.ensure_shape(
            views / float(images.dtype.max), (None, self.size, self.size, images.shape[3])
        )

    def crop_one(self, image: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Crops, flips and resizes one image of any size, bicubically.

        Args:
            image: uint8 or uint16 `[H, W, channels]`.
            params: float32 `[1, 48]`.

        Returns:
            float32 `[size, size, channels]` in [0, 1].
        """
        y1, x1, y2, x2 = tf.unstack(
            pixel_boxes(self.policy, params, *tf.unstack(tf.shape(image)[:2]))[0]
        )
        return self.resize_one(image[y1:y2, x1:x2], params)

    def resize_one(self, crop: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Flips and resizes one crop of any size: what `crop_one` does after cropping."""
        view = tf.image.resize(crop, (self.size, self.size), "bicubic")
        view = tf.where(self._flips(params)[0], view[:, ::-1], view)
        return tf.clip_by_value(view / float(crop.dtype.max), 0.0, 1.0)

    def augment(self, views: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Applies what follows crop and flip: float32 `[N, size, size, channels]` in [0, 1].

        Args:
            views: the resized crops.
            params: float32 `[N, 48]`.
        """
        policy = self.policy.for_channels(views.shape[3])
        steps: list[tuple[float, int, _Operation]] = [
            (policy.perspective_probability, PERSPECTIVE, self._perspective),
            (policy.jitter_probability, JITTER, self._jitter),
            (policy.grayscale_probability, GRAYSCALE, lambda v, _: self._colors.grayscale(v)),
            (policy.blur_probability, BLUR, self._blur),
            (policy.solarize_probability, SOLARIZE, self._solarized),
            (policy.patch_drop_probability, PATCH_DROP, self._drop_patches),
        ]
        for probability, column, operation in steps:
            views = _sometimes(probability, params[:, column], views, params, operation)
        if policy.channel_drop_probability > 0.0:
            dropped = dropped_channels(policy, params, views.shape[3])
            views = tf.where(dropped[:, None, None], 0.0, views)
        return views

    def _flips(self, params: tf.Tensor) -> tf.Tensor:
        return params[:, FLIP] < self.policy.flip_probability

    def _jitter(self, views: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Applies the four colour operations in each image's own order.

        In each round every image goes through one of them. Those of strength 0 are skipped; the
        others keep their order.
        """
        policy, colors = self.policy.for_channels(views.shape[3]), self._colors

        def brightness(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
            return colors.brightness(v, u[:, 0] * policy.brightness)

        def contrast(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
            factor = 1.0 + u[:, 1] * policy.contrast
            if policy.contrast_center == "zero":
                return tf.clip_by_value(factor[:, None, None, None] * v, 0.0, 1.0)
            return colors.contrast(v, factor)

        def saturation(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
            return colors.saturation(v, 1.0 + u[:, 2] * policy.saturation)

        def hue(v: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
            return colors.hue(v, u[:, 3] * policy.hue)

        strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
        active = [index for index, strength in enumerate(strengths) if strength > 0.0]
        if not active:
            return views
        operations = [(brightness, contrast, saturation, hue)[index] for index in active]
        amounts = params[:, COLOR] * 2.0 - 1.0
        order = tf.argsort(tf.gather(params[:, ORDER], active, axis=1), axis=1)
        for round_index in range(len(active)):
            chosen = order[:, round_index]
            rows = tf.dynamic_partition(tf.range(tf.shape(views)[0]), chosen, len(active))
            groups = tf.dynamic_partition(views, chosen, len(active))
            changed = [
                operation(group, tf.gather(amounts, group_rows))
                for operation, group, group_rows in zip(operations, groups, rows, strict=True)
            ]
            views = tf.ensure_shape(tf.dynamic_stitch(rows, changed), views.shape)
        return views

    def _blur(self, views: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Applies a zero-padded Gaussian blur, as two products with a band matrix per image.

        The layers' own blur loops over the images, or has one sigma for all of them.
        """
        taps = blur_taps(self.policy, params, self.size)
        radius = taps.shape[1] // 2
        distance = tf.abs(tf.range(self.size)[:, None] - tf.range(self.size)[None, :])
        band = tf.where(
            distance <= radius,
            tf.gather(taps[:, radius:], tf.minimum(distance, radius), axis=1),
            0.0,
        )
        # The product runs along axis 1: once down, transposed, once across, transposed back.
        channels = views.shape[3]
        for _ in range(2):
            views = tf.matmul(band, tf.reshape(views, (-1, self.size, self.size * channels)))
            views = tf.reshape(views, (-1, self.size, self.size, channels))
            views = tf.transpose(views, (0, 2, 1, 3))
        return tf.clip_by_value(views, 0.0, 1.0)

    def _solarized(self, views: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return self._colors.solarize(views, self.policy.solarize_threshold)

    def _perspective(self, views: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Applies a random perspective; bilinear, black outside the view."""
        side = self.size - 1.0
        matrices = perspective_matrices(self.policy, params, self.size)
        matrices = tf.reshape(matrices * tf.constant([[side], [side], [1.0]]), (-1, 9))
        warped = tf.raw_ops.ImageProjectiveTransformV3(
            images=views,
            transforms=matrices[:, :8] / matrices[:, 8:],
            output_shape=(self.size, self.size),
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
        return tf.clip_by_value(warped, 0.0, 1.0)

    def _drop_patches(self, views: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        return tf.where(dropped_pixels(self.policy, params, self.size)[..., None], 0.0, views)


def _sometimes(
    probability: float,
    uniform: tf.Tensor,
    views: tf.Tensor,
    params: tf.Tensor,
    operation: _Operation,
) -> tf.Tensor:
    """Applies `operation(views, params)` to the images whose `uniform` lies below `probability`."""
    if probability == 0.0:
        return views
    if probability == 1.0:
        return operation(views, params)
    chosen = tf.cast(uniform < probability, tf.int32)
    rows = tf.dynamic_partition(tf.range(tf.shape(views)[0]), chosen, 2)
    unchanged, selected = tf.dynamic_partition(views, chosen, 2)
    changed = operation(selected, tf.gather(params, rows[1]))
    return tf.ensure_shape(tf.dynamic_stitch(rows, [unchanged, changed]), views.shape)


def _sample_range(
    low: tf.Tensor, high: tf.Tensor, side: tf.Tensor, size: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns crop_and_resize's coordinates of a box's first and last sample.

    Args:
        low: where the box begins, as a fraction of the image's side.
        high: where it ends.
        side: of the image in pixels.
        size: number of samples.

    Returns:
        Coordinates in the image padded by a pixel, whose 0 and 1 are the centres of the first and
        last pixel.
    """
    half = (high - low) / size / 2.0
    return ((low + half) * side + 0.5) / (side + 1.0), ((high - half) * side + 0.5) / (side + 1.0)
