"""Views of images where the network runs: one Keras layer without an operation that XLA or a TPU
lacks.

Crop, flip, resize and blur are products with a matrix per image and axis; jitter and grayscale are
one 3 x 3 matrix and an offset per image. It reads the same policy and makes the same draws as the
host views, so both engines crop the same boxes and change the same images by the same amounts.
"""

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views import random_params as draws_of
from pipelines.views.color import apply_colour, clipped_colour, colour_matrices
from pipelines.views.geometry import (
    INTERPOLATIONS,
    blur,
    blur_taps,
    crop_matrices,
    dropped_pixels,
    resample,
    warp,
)

_PHILOX_FACTORS = (0xD2511F53, 0xCD9E8D57)
_PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_PHILOX_ROUNDS = 10
_SCRAMBLE_KEY = (0x3EC8F720, 0x02461E29)
"""TensorFlow's (core/kernels/stateless_random_ops.cc, `GenerateKey`)."""
_LOW_WORD = 0xFFFFFFFF
_WHITE = 255.0


def _philox(counter, key):
    """Philox4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011): four words
    and two, uint64 tensors below 2^32."""
    word = [tf.cast(part, tf.uint64) for part in counter]
    low = tf.constant(_LOW_WORD, tf.uint64)
    for turn in range(_PHILOX_ROUNDS):
        first, second = (word[2 * i] * tf.constant(_PHILOX_FACTORS[i], tf.uint64) for i in range(2))
        keys = [
            (key[i] + tf.constant(turn * _PHILOX_KEY_STEPS[i], tf.uint64)) & low for i in range(2)
        ]
        word = [
            _high(second) ^ word[1] ^ keys[0],
            second & low,
            _high(first) ^ word[3] ^ keys[1],
            first & low,
        ]
    return word


def _high(number):
    return tf.bitwise.right_shift(number, tf.constant(32, tf.uint64))


def _words(number):
    return [number & tf.constant(_LOW_WORD, tf.uint64), _high(number)]


def image_draws(seed: tuple[int, int], ids: tf.Tensor) -> tf.Tensor:
    """The numbers of `draws.draw`, to the bit, for any images and in integer operations that every
    device and XLA have.

    Args:
        seed: two ints: the run's seed and the view's number.
        ids: int64 `[N, 2]`: epoch and position in it.

    Returns:
        float32 `[N, 48]` in [0, 1). A row depends on the seed and its ids alone.
    """
    with tf.init_scope():
        folded = tf.random.stateless_uniform((), seed, None, None, tf.int64, alg="philox").numpy()
    ids = tf.cast(tf.cast(ids, tf.int64), tf.uint64)
    epoch, position = ids[:, :1], ids[:, 1:]
    start = tf.ones_like(epoch) * tf.constant(int(folded) % 2**64, tf.uint64)
    key = _philox(
        [*_words(start), *_words(epoch)], [tf.constant(word, tf.uint64) for word in _SCRAMBLE_KEY]
    )
    steps = draws_of.PARAMS_PER_VIEW // 4
    ahead = position * tf.constant(steps, tf.uint64) + np.arange(steps, dtype=np.uint64)
    words = _philox([*_words(ahead), *(part + tf.zeros_like(ahead) for part in key[2:])], key[:2])
    bits = tf.reshape(tf.stack(words, axis=-1), (-1, draws_of.PARAMS_PER_VIEW))
    return (
        tf.cast(tf.cast(bits & tf.constant(0x7FFFFF, tf.uint64), tf.int32), tf.float32) * 2.0**-23
    )


def _compiled(function: Callable) -> Callable:
    """XLA for what lies between the matrix products: it fuses there what would each be a pass
    through memory."""
    return tf.function(function, jit_compile=True, autograph=False)


@keras.saving.register_keras_serializable(package="byol_tf")
class FusedViews(keras.layers.Layer):
    """One view policy, realised on batches of images.

    Args:
        policy: what a view is; or its fields as a dictionary.
        size: side of a view in pixels.
        seed: two ints: the run's seed and the view's number (0 or 1).
        mean, std: three numbers each: (view - mean) / std is the last operation.
        interpolation: `bicubic`, as the papers, or `bilinear`, as host views of images of one size;
            both antialiased.
        exact: clip to [0, 1] after every operation, with saturation and hue of HSV, as the papers
            and the host views do. Otherwise pixels are clipped once, in the end, and saturation and
            hue are linear; `python -m benchmarks.views` prints by how much that differs.
        **kwargs: as `keras.layers.Layer`. The views, and the products that resample them, have the
            layer's compute dtype; draws, colours and what decides where a pixel comes from are
            float32.

    Call arguments:
        images: `[N, H, W, 3]`, uint8, or float in [0, 1]. ids: int64 `[N, 2]`, (epoch, position in
        the epoch) of each image. An image's view depends on them and the seed alone.

    Returns:
        `[N, size, size, 3]`, normalised.

    Raises:
        ValueError: for an unknown interpolation or image of another shape.
    """

    def __init__(
        self,
        policy: ViewPolicy | dict,
        size: int,
        seed: tuple[int, int],
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
        exact: bool = False,
        **kwargs,
    ):
        super().__init__(autocast=False, **kwargs)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation: expected one of {', '.join(INTERPOLATIONS)}; received "
                f"{interpolation!r}"
            )
        self.policy = policy if isinstance(policy, ViewPolicy) else ViewPolicy(**policy)
        self.size, self.seed, self.mean, self.std = size, tuple(seed), tuple(mean), tuple(std)
        self.interpolation, self.exact = interpolation, exact
        self._blurs = self.policy.blur_probability > 0.0
        # Linear colour commutes with crop and blur, so both are one product; a clip or a
        # perspective in between parts them.
        self._single_matmul = not exact and self.policy.perspective_probability == 0.0
        self._plan, self._blur_matrices = (
            _compiled(self._plan_fn),
            _compiled(self._blurred_matrices),
        )
        self._recolour, self._finish = _compiled(self._color_fn), _compiled(self._finish_fn)

    def call(self, images, ids):
        return self.from_lines(image_lines(images, self.compute_dtype), ids)

    def from_lines(self, lines: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """`call` for what `image_lines` returned."""
        plan = self._plan(lines, ids)
        rows, columns = plan["rows"], plan["columns"]
        if self._single_matmul and self._blurs:
            rows, columns = self._blur_matrices(rows, columns, plan["taps"])
        lines = resample(lines, tf.cast(rows, lines.dtype), tf.cast(columns, lines.dtype))
        return self._finish(lines if self._single_matmul else self._recolour(lines, plan), plan)

    def _plan_fn(self, lines, ids):
        """Everything that is decided before a pixel moves."""
        _, height, _, width = lines.shape
        draws = image_draws(self.seed, ids)
        rows, columns = crop_matrices(
            self.policy, draws, (height, width), self.size, self.interpolation
        )
        columns *= 1.0 / _WHITE
        plan = {"draws": draws, "rows": rows, "columns": columns}
        if self._single_matmul:
            plan["matrix"], plan["offset"] = colour_matrices(
                self.policy, draws, _channel_means(lines, rows, columns)
            )
        if self._blurs:
            plan["taps"] = blur_taps(self.policy, draws, self.size)
        return plan

    def _blurred_matrices(self, rows, columns, taps):
        return tf.cast(blur(rows, taps, 1), self.compute_dtype), tf.cast(
            blur(columns, taps, 1), self.compute_dtype
        )

    def _color_fn(self, lines, plan):
        """What comes after the crop, to the blur."""
        lines, draws = tf.cast(lines, tf.float32), plan["draws"]
        if self.exact:
            lines = tf.clip_by_value(lines, 0.0, 1.0)
        if self.policy.perspective_probability > 0.0:
            lines = warp(self.policy, draws, lines)
        if self.exact:
            lines = clipped_colour(self.policy, draws, lines)
        else:
            lines = apply_colour(
                lines, *colour_matrices(self.policy, draws, tf.reduce_mean(lines, axis=(1, 3)))
            )
        return blur(blur(lines, plan["taps"], 1), plan["taps"], 3) if self._blurs else lines

    def _finish_fn(self, lines, plan):
        policy, draws, lines = self.policy, plan["draws"], tf.cast(lines, tf.float32)
        if self._single_matmul:
            share = None
            if self._blurs:  # the blur darkens the view's edge, and the offset with it
                share = blur(tf.ones((tf.shape(lines)[0], self.size)), plan["taps"], 1)
                share = share[:, :, None, None] * share[:, None, None, :]
            lines = apply_colour(lines, plan["matrix"], plan["offset"], share)
        if policy.solarize_probability > 0.0:
            chosen = (draws[:, draws_of.SOLARIZE] < policy.solarize_probability)[
                :, None, None, None
            ]
            lines = tf.where(chosen & (lines >= policy.solarize_threshold), 1.0 - lines, lines)
        lines = tf.clip_by_value(lines, 0.0, 1.0)
        if policy.patch_drop_probability > 0.0:
            lines = tf.where(dropped_pixels(policy, draws, self.size)[:, :, None, :], 0.0, lines)
        views = tf.transpose(lines, (0, 1, 3, 2))
        return tf.cast(
            (views - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32),
            self.compute_dtype,
        )

    def compute_output_shape(self, images_shape, ids_shape):
        return (images_shape[0], self.size, self.size, 3)

    def get_config(self):
        own = ("size", "seed", "mean", "std", "interpolation", "exact")
        return (
            super().get_config()
            | {"policy": self.policy.model_dump()}
            | {name: getattr(self, name) for name in own}
        )


def image_lines(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """Images `[N, H, W, 3]`, uint8 or float in [0, 1] -> lines `[N, H, 3, W]` of `dtype` in [0,
    255]: uint8's values are exact in bfloat16 too. ValueError for another shape."""
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or None in images.shape[1:] or images.shape[3] != 3:
        raise ValueError(
            f"images: expected shape [N, H, W, 3], all but N known; received {images.shape}"
        )
    return _lines(images, dtype)


@_compiled
def _lines(images, dtype):
    return tf.cast(
        tf.transpose(images, (0, 1, 3, 2)) * (1 if images.dtype == tf.uint8 else _WHITE), dtype
    )


def _channel_means(lines, rows, columns):
    """float32 `[N, 3]`: the means of what the crop will be, before it is made."""
    _, height, channels, width = lines.shape
    down = tf.matmul(
        tf.reduce_mean(rows, axis=1, keepdims=True),
        tf.reshape(tf.cast(lines, tf.float32), (-1, height, channels * width)),
    )
    return tf.reduce_sum(
        tf.reshape(down, (-1, channels, width)) * tf.reduce_mean(columns, axis=1, keepdims=True),
        axis=2,
    )


def fused_view_pair(
    first: FusedViews, second: FusedViews, images: tf.Tensor, ids: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """`first(images, ids)` and `second(images, ids)`, for layers of one compute dtype; reads the
    images once."""
    lines = image_lines(images, first.compute_dtype)
    return first.from_lines(lines, ids), second.from_lines(lines, ids)
