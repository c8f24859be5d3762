"""Endless, seeded tf.data streams of images, crops or views that can begin at any step.

Order and random parameters are functions of (seed, epoch, position): step k's batch is the same
whether the stream began at 0 or at k, and nothing is replayed to get there. Several workers take
equal parts of each batch, and each reads its own images only.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.sources.images import REQUESTS
from pipelines.views.host import HostViews
from pipelines.views.host_colors import HostEngine
from pipelines.views.host_crops import read_crops, resize_crop
from pipelines.views.random_params import sample_params

_PREFETCH = 4
_STEPS_AHEAD, _BYTES_AHEAD = 8, 2**28
"""Steps, and bytes of them if that is fewer, for which blocks of images are requested before they
are read; one step at least."""
_REMOTE_BATCHES = 2
"""Batches of remote images that are read at once: each makes `REQUESTS` requests at once itself,
and what has been fetched for more of them would fill the memory."""


def image_batches(
    images: Images,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    worker: int = 0,
    workers: int = 1,
    view_count: int = 2,
) -> tf.data.Dataset:
    """Returns endless batches of unchanged images, for views that `FusedViews` makes in the step.

    They take an eighth of the bytes of two float32 views of the same size.

    Args:
        images: the set to learn from, all of one shape.
        batch_size: images per step, over all workers.
        seed: decides the order and the parameters of the views.
        first_step: the step to begin at.
        worker: which part of each batch is read, counted from 0.
        workers: number of equal parts of each batch.
        view_count: number of views of each image.

    Returns:
        A dataset of (images `[N, H, W, channels]` of their dtype, params float32 `[N, view_count,
        48]`), N being batch_size / workers.

    Raises:
        ValueError: there are fewer images than a batch holds, they are of several shapes, or the
            workers don't divide a batch.

    Example:
        ```python
        for images, params in image_batches(source.pretrain, batch_size=64, seed=0).take(10):
            views = [layer(images, params) for layer in fused_views]
        ```
    """
    order = Order(len(images), batch_size, seed, worker, workers, images.blocks)
    if images.shape is None:
        raise ValueError(
            "images: expected images of one shape; received several, which crop_batches takes"
        )

    return _batches(images, order, seed, view_count, first_step).prefetch(_PREFETCH)


def crop_batches(
    images: Images,
    policies: tuple[ViewPolicy, ...],
    size: int,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Returns endless batches of crops; the rest of each view is made in the step.

    They are a quarter of the bytes of float views.

    Args:
        images: the set to learn from, of any shapes.
        policies: one for each view. Only its crop is made here; the flip and what follows are left
            to `FusedViews(policy.without_crop(), ...)`.
        size: side of a view in pixels.
        batch_size: images per step, over all workers.
        seed: decides the order and the parameters of the views.
        first_step: the step to begin at.
        worker: which part of each batch is read, counted from 0.
        workers: number of equal parts of each batch.

    Returns:
        A dataset of (crop1, crop2, ..., params): each crop `[N, size, size, channels]` of the
        images' dtype, params float32 `[N, views, 48]`, N being batch_size / workers.

    Raises:
        ValueError: there are fewer images than a batch holds, or the workers don't divide a batch.
    """
    order = Order(len(images), batch_size, seed, worker, workers, images.blocks)

    @tf.autograph.experimental.do_not_convert
    def make_crops(epoch: tf.Tensor, position: tf.Tensor, index: tf.Tensor) -> tuple:
        params = sample_params(seed, len(policies), epoch, position[None])
        crops = read_crops(images, index, policies, params)
        return (*(resize_crop(crop, size) for crop in crops), params[0])

    steps = _steps(images, order, first_step)
    return _one_by_one(make_crops, order, steps, images.remote).prefetch(_PREFETCH)


def view_batches(
    images: Images,
    policies: tuple[ViewPolicy, ...],
    size: int,
    batch_size: int,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    first_step: int = 0,
    worker: int = 0,
    workers: int = 1,
    engine: HostEngine = "keras",
) -> tf.data.Dataset:
    """Returns endless batches of views, made on the host.

    Args:
        images: the set to learn from. Where all have one shape, views are made batch by batch, else
            image by image.
        policies: one for each view; two for BYOL.
        size: side of a view in pixels.
        batch_size: images per step, over all workers.
        seed: decides the order and the parameters of the views.
        mean: a number for each channel; (view - mean) / std is the last operation.
        std: a number for each channel.
        first_step: the step to begin at.
        worker: which part of each batch is read, counted from 0.
        workers: number of equal parts of each batch.
        engine: whose layers do the colour operations, `keras` or `keras_cv`.

    Returns:
        A dataset of (view1, view2, ...), each float32 `[batch_size / workers, size, size,
        channels]`.

    Raises:
        ImportError: the engine is `keras_cv` and keras-cv can't be imported.
        ValueError: there are fewer images than a batch holds, or the workers don't divide a batch.

    Example:
        ```python
        images = open_source("stl10").pretrain
        batches = view_batches(images, preset("byol"), 96, 256, 0, (0.5,) * 3, (0.25,) * 3)
        ```
    """
    order = Order(len(images), batch_size, seed, worker, workers, images.blocks)
    makers = [HostViews(policy, size, engine) for policy in policies]

    def normalized(views: tf.Tensor) -> tf.Tensor:
        return (views - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)

    @tf.autograph.experimental.do_not_convert
    def make_views(batch: tf.Tensor, params: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return tuple(normalized(maker(batch, params[:, view])) for view, maker in enumerate(makers))

    @tf.autograph.experimental.do_not_convert
    def make_crops(epoch: tf.Tensor, position: tf.Tensor, index: tf.Tensor) -> tuple:
        params = sample_params(seed, len(makers), epoch, position[None])
        crops = read_crops(images, index, policies, params)
        resized = (
            maker.resize_one(crop, params[:, view])
            for view, (maker, crop) in enumerate(zip(makers, crops, strict=True))
        )
        return (*resized, params[0])

    @tf.autograph.experimental.do_not_convert
    def augment_crops(*crops_and_params: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *crops, params = crops_and_params
        return tuple(
            normalized(maker.augment(crop, params[:, view]))
            for view, (maker, crop) in enumerate(zip(makers, crops, strict=True))
        )

    if images.shape is not None:
        batches = _batches(images, order, seed, len(makers), first_step).map(
            make_views, num_parallel_calls=tf.data.AUTOTUNE
        )
    else:
        steps = _steps(images, order, first_step)
        batches = _one_by_one(make_crops, order, steps, images.remote).map(
            augment_crops, num_parallel_calls=tf.data.AUTOTUNE
        )
    return batches.prefetch(_PREFETCH)


def _steps(images: Images, order: Order, first_step: int) -> tf.data.Dataset:
    """Returns the steps from the first one on; before each, images of later steps are fetched."""
    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    if images.blocks is None:
        return steps

    step_bytes = max(1, order.images_per_worker * images.blocks.image_bytes)
    ahead = max(1, min(_STEPS_AHEAD, _BYTES_AHEAD // step_bytes))

    def fetch(step: np.ndarray) -> np.ndarray:
        for later in range(step + ahead * (step > first_step), step + ahead + 1):
            images.prefetch(order.newly_opened(later, first_step))
        return step

    @tf.autograph.experimental.do_not_convert
    def fetched(step: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.numpy_function(fetch, [step], tf.int64), ())

    return steps.map(fetched)


def _batches(
    images: Images, order: Order, seed: int, view_count: int, first_step: int
) -> tf.data.Dataset:
    """Returns batches `[N, H, W, channels]` of images that have one shape, and their params."""

    @tf.autograph.experimental.do_not_convert
    def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        epoch, positions, indices = order.at(step)
        batch = tf.numpy_function(images.batch, [indices], images.dtype, stateful=False)
        batch = tf.ensure_shape(batch, (*indices.shape, *(images.shape or ())))
        return batch, sample_params(seed, view_count, epoch, positions)

    calls = _REMOTE_BATCHES if images.remote else tf.data.AUTOTUNE
    return _steps(images, order, first_step).map(read, num_parallel_calls=calls)


def _one_by_one(
    make: Callable, order: Order, steps: tf.data.Dataset, remote: bool
) -> tf.data.Dataset:
    """Applies `make(epoch, position, index)` to each image; returns batches of the results."""

    @tf.autograph.experimental.do_not_convert
    def split_batch(step: tf.Tensor) -> tf.data.Dataset:
        epoch, positions, indices = order.at(step)
        return tf.data.Dataset.from_tensor_slices(
            (tf.repeat(epoch, order.images_per_worker), positions, indices)
        )

    calls = REQUESTS if remote else tf.data.AUTOTUNE
    images = steps.flat_map(split_batch).map(make, num_parallel_calls=calls)
    batches = images.batch(order.images_per_worker, drop_remainder=True)
    if not remote:
        return batches
    options = tf.data.Options()  # by default no more calls wait than there are cores
    options.threading.private_threadpool_size = REQUESTS
    return batches.with_options(options)
