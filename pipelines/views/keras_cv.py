"""Views of images on the host, in tf.data: keras-cv does the pixel work, every draw is a function
of (seed, epoch, position).

keras-cv's layers separate what is drawn from what is done to the pixels. Here the draws are made by
a counter-based generator, in the papers' conventions, and handed to the layers' `augment_images`.
So no layer keeps a generator of its own, an image gets the same views in whatever batch it is, and
the conventions are translated in one place:

* `RandomHue` turns by a fraction of the circle, `RandomSaturation` scales by x / (1 - x),
  `Solarization` has its threshold on 0..255;
* its crop draws the aspect uniformly (the papers: log-uniform), one image at a time; here boxes are
  drawn for the whole batch;
* its jitter has one order and no probability; here each image has an order of its own.

Crops are resampled bilinearly (`tf.image.crop_and_resize`, keras-cv's own kernel) where images are
held at one size; photos of different sizes are cropped one by one and resampled bicubically, as
deepmind-research does.
"""

import math

import tensorflow as tf
from keras_cv.layers import (
    Grayscale,
    RandomBrightness,
    RandomContrast,
    RandomHue,
    RandomSaturation,
    Solarization,
)

from pipelines.policy import ViewPolicy, kernel_size
from pipelines.views import random_params as draws_of
from pipelines.views.random_params import crop_boxes, lerp, pixel_boxes, sample_params

_VALUES = (0.0, 1.0)


class HostViews:
    """One view policy, realised on batches.

    Args:
        policy: what a view is.
        size: side of a view in pixels.
        seed: two ints: the run's seed and the view's number (0 or 1).
    """

    def __init__(self, policy: ViewPolicy, size: int, seed: tuple[int, int]):
        self.policy, self.size, self.seed = policy, size, seed
        # float32 whatever the global policy is: under mixed_float16 some keras-cv layers return
        # non-finite values. The seed is never drawn from: it keeps the layers off TensorFlow's
        # global generator, which refuses to exist where ops are made deterministic.
        common = {"dtype": "float32", "seed": 1}
        self._brightness = RandomBrightness(factor=0.0, value_range=_VALUES, **common)
        self._contrast = RandomContrast(factor=0.0, value_range=_VALUES, **common)
        self._saturation = RandomSaturation(factor=0.5, **common)
        self._hue = RandomHue(factor=0.0, value_range=_VALUES, **common)
        self._gray = Grayscale(output_channels=3, **common)
        self._solarize = Solarization(value_range=_VALUES, **common)

    def __call__(self, images: tf.Tensor, epoch: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Draws one view of each image.

        Args:
            images: uint8 `[N, H, W, 3]`.
            epoch: int64 scalar.
            positions: int64 `[N]`, consecutive.

        Returns:
            float32 `[N, size, size, 3]` in [0, 1].
        """
        draws = sample_params(self.seed, epoch, positions)
        return self.recolour(self.crop(images, draws), draws)

    def crop(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Crop, flip and resize: uint8 `[N, H, W, 3]` to float32 `[N, size, size, 3]` in [0, 1]."""
        boxes = crop_boxes(self.policy, draws, tf.shape(images)[1], tf.shape(images)[2])
        y1, x1, y2, x2 = tf.unstack(boxes, axis=1)
        flip = self._flips(draws)
        # An edge pixel more on each side: a sample outside the outermost centres takes the edge's
        # value, where crop_and_resize would give black.
        padded = tf.concat([images[:, :1], images, images[:, -1:]], axis=1)
        padded = tf.concat([padded[:, :, :1], padded, padded[:, :, -1:]], axis=2)
        # Pixel centres: crop_and_resize maps a box's ends to the first and last sample, so the box
        # is drawn in by half an output pixel.
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
        return tf.ensure_shape(views / 255.0, (None, self.size, self.size, 3))

    def crop_one(self, image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """`crop` for one image of any size, bicubic: uint8 `[H, W, 3]` and draws `[1, 48]` to
        float32 `[size, size, 3]` in [0, 1]."""
        y1, x1, y2, x2 = tf.unstack(
            pixel_boxes(self.policy, draws, *tf.unstack(tf.shape(image)[:2]))[0]
        )
        return self.resize_one(image[y1:y2, x1:x2], draws)

    def resize_one(self, part: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """`crop_one` for the part of the image that lies in its box."""
        view = tf.image.resize(part, (self.size, self.size), "bicubic")
        view = tf.where(self._flips(draws)[0], view[:, ::-1], view)
        return tf.clip_by_value(view / 255.0, 0.0, 1.0)

    def recolour(self, views: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """What follows the crop: float32 `[N, size, size, 3]` in [0, 1], in and out."""
        policy = self.policy
        views = self._sometimes(
            policy.perspective_probability,
            draws[:, draws_of.PERSPECTIVE],
            views,
            draws,
            self._perspective,
        )
        views = self._sometimes(
            policy.jitter_probability, draws[:, draws_of.JITTER], views, draws, self._jitter
        )
        views = self._sometimes(
            policy.grayscale_probability,
            draws[:, draws_of.GRAY],
            views,
            draws,
            lambda v, _: self._gray.augment_images(v),
        )
        views = self._sometimes(
            policy.blur_probability, draws[:, draws_of.BLUR], views, draws, self._blur
        )
        views = self._sometimes(
            policy.solarize_probability, draws[:, draws_of.SOLARIZE], views, draws, self._solarized
        )
        return self._sometimes(
            policy.patch_drop_probability,
            draws[:, draws_of.PATCHES],
            views,
            draws,
            self._drop_patches,
        )

    def _flips(self, draws):
        return draws[:, draws_of.FLIP] < self.policy.flip_probability

    @staticmethod
    def _sometimes(probability, uniform, views, draws, operation):
        """Applies `operation(views, draws)` to the images whose number lies below `probability`,
        and to those only."""
        if probability == 0.0:
            return views
        if probability == 1.0:
            return operation(views, draws)
        chosen = tf.cast(uniform < probability, tf.int32)
        indices = tf.dynamic_partition(tf.range(tf.shape(views)[0]), chosen, 2)
        rest, some = tf.dynamic_partition(views, chosen, 2)
        changed = operation(some, tf.gather(draws, indices[1]))
        return tf.ensure_shape(tf.dynamic_stitch(indices, [rest, changed]), views.shape)

    def _grayed(self, views, _):
        return self._gray.augment_images(views)

    def _jitter(self, views, draws):
        """The four colour operations, in an order of each image's own: in each round every image
        goes through one of them.

        Those of no strength are left out; the others keep their order.
        """
        colour = draws[:, draws_of.COLOUR : draws_of.COLOUR + 4] * 2.0 - 1.0
        policy = self.policy

        def brightness(v, u):
            return self._brightness.augment_images(
                v, tf.reshape(u[:, 0] * policy.brightness, (-1, 1, 1, 1))
            )

        def contrast(v, u):
            return self._contrast.augment_images(
                v, tf.reshape(1.0 + u[:, 1] * policy.contrast, (-1, 1, 1, 1))
            )

        def saturation(v, u):
            scale = 1.0 + u[:, 2] * policy.saturation
            return self._saturation.augment_images(v, scale / (1.0 + scale))

        def hue(v, u):
            return self._hue.augment_images(v, u[:, 3] * policy.hue)

        strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
        active = [number for number, strength in enumerate(strengths) if strength > 0.0]
        if not active:
            return views
        operations = [(brightness, contrast, saturation, hue)[number] for number in active]
        order = tf.argsort(
            tf.gather(draws, [draws_of.ORDER + number for number in active], axis=1), axis=1
        )
        for turn in range(len(active)):
            which = order[:, turn]
            indices = tf.dynamic_partition(tf.range(tf.shape(views)[0]), which, len(active))
            parts = tf.dynamic_partition(views, which, len(active))
            changed = [
                op(part, tf.gather(colour, index))
                for op, part, index in zip(operations, parts, indices, strict=True)
            ]
            views = tf.ensure_shape(tf.dynamic_stitch(indices, changed), views.shape)
        return views

    def _blur(self, views, draws):
        """Gaussian blur with zero padding, as two products with a band matrix of each image's own
        (keras-cv's loops over the images)."""
        sigma = lerp(draws[:, draws_of.BLUR + 1], *self.policy.blur_sigma)
        radius = kernel_size(self.size) // 2
        distance = tf.abs(tf.range(self.size)[:, None] - tf.range(self.size)[None, :])
        weights = tf.exp(
            -tf.square(tf.range(-radius, radius + 1, dtype=tf.float32))
            / (2.0 * tf.square(sigma[:, None]))
        )
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        band = tf.where(
            distance <= radius,
            tf.gather(weights[:, radius:], tf.minimum(distance, radius), axis=1),
            0.0,
        )
        # Once down, once across: the product runs along axis 1, so the image is turned between.
        for _ in range(2):
            views = tf.matmul(band, tf.reshape(views, (-1, self.size, self.size * 3)))
            views = tf.transpose(tf.reshape(views, (-1, self.size, self.size, 3)), (0, 2, 1, 3))
        return tf.clip_by_value(views, 0.0, 1.0)

    def _solarized(self, views, draws):
        threshold = tf.fill((tf.shape(views)[0], 1, 1, 1), self.policy.solarize_threshold * 255.0)
        return self._solarize.augment_images(
            views, {"additions": tf.zeros_like(threshold), "thresholds": threshold}
        )

    def _perspective(self, views, draws):
        """Each corner of the view moves inwards by up to distortion x half the side, and the view
        with it; resampled bilinearly, black where it has left (Kornia's `RandomPerspective`).
        """
        side = float(self.size - 1)
        corners = tf.constant([[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]])  # x, y
        inwards = tf.constant([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
        shares = tf.reshape(
            draws[:, draws_of.PERSPECTIVE + 1 : draws_of.PERSPECTIVE + 9], (-1, 4, 2)
        )
        moves = shares * self.policy.perspective_distortion * self.size / 2.0
        return tf.clip_by_value(
            tf.raw_ops.ImageProjectiveTransformV3(
                images=views,
                transforms=_homography(corners, corners + inwards * moves),
                output_shape=(self.size, self.size),
                fill_value=0.0,
                interpolation="BILINEAR",
                fill_mode="CONSTANT",
            ),
            0.0,
            1.0,
        )

    def _drop_patches(self, views, draws):
        """One to three rectangles of drawn area, aspect and place turn black."""
        u = draws[:, draws_of.PATCHES + 1 : draws_of.PATCHES + 14]
        count = 1.0 + tf.floor(u[:, 12] * 3.0)
        u = tf.reshape(u[:, :12], (-1, 3, 4))
        area = lerp(u[..., 0], *self.policy.patch_drop_area)
        aspect = tf.exp(lerp(u[..., 1], math.log(0.5), math.log(2.0)))
        height, width = (
            tf.minimum(tf.sqrt(area / aspect), 1.0),
            tf.minimum(tf.sqrt(area * aspect), 1.0),
        )
        top, left = u[..., 2] * (1.0 - height), u[..., 3] * (1.0 - width)
        used = tf.range(3.0) < count[:, None]
        centres = (tf.range(self.size, dtype=tf.float32) + 0.5) / self.size
        rows = (centres >= top[..., None]) & (centres < (top + height)[..., None]) & used[..., None]
        columns = (centres >= left[..., None]) & (centres < (left + width)[..., None])
        dropped = tf.reduce_any(rows[:, :, :, None] & columns[:, :, None, :], axis=1)
        return tf.where(dropped[..., None], 0.0, views)


def _sample_range(low, high, side, size):
    """Fractions of the image's side (low, high) -> crop_and_resize's coordinates in the image
    padded by a pixel, whose 0 and 1 are the centres of the first and last pixel."""
    half = (high - low) / size / 2.0
    return ((low + half) * side + 0.5) / (side + 1.0), ((high - half) * side + 0.5) / (side + 1.0)


def _homography(source, destination):
    """Projective transforms `[N, 8]` that take each point of `destination` `[N, 4, 2]` to that of
    `source` `[4, 2]`."""
    x, y = destination[..., 0], destination[..., 1]
    zero, one = tf.zeros_like(x), tf.ones_like(x)
    u, v = source[:, 0] + zero, source[:, 1] + zero
    rows_u = tf.stack([x, y, one, zero, zero, zero, -x * u, -y * u], axis=-1)
    rows_v = tf.stack([zero, zero, zero, x, y, one, -x * v, -y * v], axis=-1)
    solution = tf.linalg.solve(
        tf.concat([rows_u, rows_v], axis=1), tf.concat([u, v], axis=1)[..., None]
    )
    return solution[..., 0]
