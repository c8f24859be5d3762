"""Views made where the network runs: one Keras layer, in operations that XLA has on every device.

Crop, flip, resize and blur are products with one matrix per image and axis; jitter and grayscale
are one 3 x 3 matrix, or a factor for other channels than RGB's, and an offset per image. Policies
and parameters are those of the host views, so both engines crop the same boxes and change the same
images by the same amounts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.views.color import apply_color, clipped_color, color_matrices
from pipelines.views.geometry import (
    INTERPOLATIONS,
    blur,
    blur_taps,
    crop_matrices,
    dropped_pixels,
    resample,
    warp,
)
from pipelines.views.random_params import SOLARIZE, dropped_channels

_WHITE = 255.0
_Plan = dict[str, tf.Tensor]


def _compiled(function: Callable) -> Callable:
    """Compiles what lies between the matrix products with XLA.

    XLA fuses there what would otherwise be one pass through memory for each operation.
    """
    return tf.function(function, jit_compile=True, autograph=False)


@keras.saving.register_keras_serializable(package="byol_tf")
class FusedViews(keras.layers.Layer):
    """Makes one view of each image of a batch: a pure function of images and parameters.

    Args:
        policy: what the view is; a `ViewPolicy` or its fields as a dictionary.
        size: side of the view in pixels.
        view: the view's number, from 0; it selects the view's own among the parameters.
        mean: a number for each channel; (view - mean) / std is the last operation.
        std: a number for each channel.
        interpolation: "bicubic", as in the papers, or "bilinear", as host views of images of one
            size; both are antialiased.
        exact: clip to [0, 1] after every operation, with saturation and hue of HSV, as the papers
            and the host views do. Otherwise pixels are clipped once, in the end, and saturation and
            hue are linear; `python -m benchmarks.views` prints how far the two differ.
        **kwargs: as for `keras.layers.Layer`. The views and the products that resample them have
            the layer's compute dtype; parameters, colours and what decides where a pixel comes from
            are float32.

    Call arguments:
        images: `[N, H, W, channels]`, uint8, uint16, or float in [0, 1].
        params: float32 `[N, views, 48]` in [0, 1), as `sample_params` returns them and
            `image_batches` ships them with the images.

    Returns:
        `[N, size, size, channels]`, normalised.

    Raises:
        ValueError: the interpolation is unknown, or images have another shape.

    Example:
    ```python
    view = FusedViews(ViewPolicy(), size=96, view=0, mean=(0.5,) * 3, std=(0.25,) * 3)
    for images, params in image_batches(source.pretrain, batch_size=64, seed=0):
        batch = view(images, params)
    ```
    """

    def __init__(
        self,
        policy: ViewPolicy | dict[str, Any],
        size: int,
        view: int,
        mean: Sequence[float],
        std: Sequence[float],
        interpolation: str = "bicubic",
        exact: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        if interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation: expected one of {', '.join(INTERPOLATIONS)}; received "
                f"{interpolation!r}"
            )
        self.policy = policy if isinstance(policy, ViewPolicy) else ViewPolicy(**policy)
        self.size, self.view, self.mean, self.std = size, view, tuple(mean), tuple(std)
        self.interpolation, self.exact = interpolation, exact
        self._blurs = self.policy.blur_probability > 0.0
        # Linear colour commutes with crop and blur, so both are a single product; a clip or a
        # perspective in between separates them.
        self._single_matmul = not exact and self.policy.perspective_probability == 0.0
        self._plan, self._blur_matrices = _compiled(self._plan_fn), _compiled(self._blur_fn)
        self._color, self._finish = _compiled(self._color_fn), _compiled(self._finish_fn)

    def call(self, images: tf.Tensor, params: tf.Tensor) -> tf.Tensor:
        """Returns the views: see the class."""
        lines = image_lines(images, self.compute_dtype, len(self.mean))
        plan = self._plan(lines, params[:, self.view])
        rows, columns = plan["rows"], plan["columns"]
        if self._single_matmul and self._blurs:
            rows, columns = self._blur_matrices(rows, columns, plan["taps"])
        lines = resample(lines, tf.cast(rows, lines.dtype), tf.cast(columns, lines.dtype))
        return self._finish(lines if self._single_matmul else self._color(lines, plan), plan)

    def _plan_fn(self, lines: tf.Tensor, params: tf.Tensor) -> _Plan:
        """Computes everything that is decided before a pixel moves."""
        _, height, _, width = lines.shape
        rows, columns = crop_matrices(
            self.policy, params, (height, width), self.size, self.interpolation
        )
        columns *= 1.0 / _WHITE
        plan = {"params": params, "rows": rows, "columns": columns}
        if self._single_matmul:
            plan["matrix"], plan["offset"] = color_matrices(
                self.policy, params, _channel_means(lines, rows, columns)
            )
        if self._blurs:
            plan["taps"] = blur_taps(self.policy, params, self.size)
        return plan

    def _blur_fn(
        self, rows: tf.Tensor, columns: tf.Tensor, taps: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Blurs the crop's matrices instead of the crop: the product is the same."""
        rows, columns = blur(rows, taps, 1), blur(columns, taps, 1)
        return tf.cast(rows, self.compute_dtype), tf.cast(columns, self.compute_dtype)

    def _color_fn(self, lines: tf.Tensor, plan: _Plan) -> tf.Tensor:
        """Applies, one by one, what comes after the crop, up to the blur."""
        lines, params = tf.cast(lines, tf.float32), plan["params"]
        if self.exact:
            lines = tf.clip_by_value(lines, 0.0, 1.0)
        if self.policy.perspective_probability > 0.0:
            lines = warp(self.policy, params, lines)
        if self.exact:
            lines = clipped_color(self.policy, params, lines)
        else:
            lines = apply_color(
                lines, *color_matrices(self.policy, params, tf.reduce_mean(lines, axis=(1, 3)))
            )
        return blur(blur(lines, plan["taps"], 1), plan["taps"], 3) if self._blurs else lines

    def _finish_fn(self, lines: tf.Tensor, plan: _Plan) -> tf.Tensor:
        """Applies the colours if they are still to be applied, and what comes after the blur."""
        policy, params, lines = self.policy, plan["params"], tf.cast(lines, tf.float32)
        if self._single_matmul:
            offset_scale = None
            if self._blurs:  # the blur darkens the view's edge, and the offset with it
                edge = blur(tf.ones((tf.shape(lines)[0], self.size)), plan["taps"], 1)
                offset_scale = edge[:, :, None, None] * edge[:, None, None, :]
            lines = apply_color(lines, plan["matrix"], plan["offset"], offset_scale)
        if policy.solarize_probability > 0.0:
            chosen = (params[:, SOLARIZE] < policy.solarize_probability)[:, None, None, None]
            lines = tf.where(chosen & (lines >= policy.solarize_threshold), 1.0 - lines, lines)
        lines = tf.clip_by_value(lines, 0.0, 1.0)
        if policy.patch_drop_probability > 0.0:
            lines = tf.where(dropped_pixels(policy, params, self.size)[:, :, None, :], 0.0, lines)
        if policy.channel_drop_probability > 0.0:
            dropped = dropped_channels(policy, params, len(self.mean))
            lines = tf.where(dropped[:, None, :, None], 0.0, lines)
        views = tf.transpose(lines, (0, 1, 3, 2))
        return tf.cast(
            (views - tf.constant(self.mean, tf.float32)) / tf.constant(self.std, tf.float32),
            self.compute_dtype,
        )

    def compute_output_shape(
        self,
        images_shape: tuple[int | None, ...],
        params_shape: tuple[int | None, ...],
    ) -> tuple[int | None, ...]:
        """Returns `(N, size, size, channels)`."""
        return (images_shape[0], self.size, self.size, len(self.mean))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        names = ("size", "view", "mean", "std", "interpolation", "exact")
        return (
            super().get_config()
            | {"policy": self.policy.model_dump()}
            | {name: getattr(self, name) for name in names}
        )


def image_lines(images: tf.Tensor, dtype: str, channels: int = 3) -> tf.Tensor:
    """Transposes images to lines, which one matrix product per axis resamples.

    Args:
        images: `[N, H, W, channels]`, uint8, uint16, or float in [0, 1].
        dtype: of the result; that of uint16 is float32, which has room for its values.
        channels: that images have to have.

    Returns:
        `[N, H, channels, W]` in [0, 255]: uint8's values are exact in bfloat16 too.

    Raises:
        ValueError: images have another shape, or one that isn't known.
    """
    images = tf.convert_to_tensor(images)
    if images.shape.rank != 4 or None in images.shape[1:] or images.shape[3] != channels:
        raise ValueError(
            f"images: expected shape [N, H, W, {channels}], all but N known; received "
            f"{images.shape}"
        )
    return _lines(images, "float32" if images.dtype == tf.uint16 else dtype)


@_compiled
def _lines(images: tf.Tensor, dtype: str) -> tf.Tensor:
    if images.dtype == tf.uint16:
        return tf.cast(tf.transpose(images, (0, 1, 3, 2)), dtype) * (_WHITE / tf.uint16.max)
    scale = 1 if images.dtype == tf.uint8 else _WHITE
    return tf.cast(tf.transpose(images, (0, 1, 3, 2)) * scale, dtype)


def _channel_means(lines: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Returns float32 `[N, channels]`: the means of the crop, before it is made."""
    _, height, channels, width = lines.shape
    across_rows = tf.matmul(
        tf.reduce_mean(rows, axis=1, keepdims=True),
        tf.reshape(tf.cast(lines, tf.float32), (-1, height, channels * width)),
    )
    return tf.reduce_sum(
        tf.reshape(across_rows, (-1, channels, width))
        * tf.reduce_mean(columns, axis=1, keepdims=True),
        axis=2,
    )
