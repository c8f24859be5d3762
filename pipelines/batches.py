"""Images and view policies -> an endless, seeded tf.data stream of views that can begin at any
step.

Order and draws are functions of (seed, epoch, position): step k's batch is the same whether the
stream began at 0 or at k, and nothing is replayed to get there. Several workers take a part of each
batch, and each reads its own images only.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from pipelines.policy import ViewPolicy
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.views.host_crops import read_crops, resized
from pipelines.views.keras_cv import HostViews
from pipelines.views.random_params import sample_params

_READ_AHEAD = 4


def image_batches(
    images: Images,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Endless batches of images as they are, for views that are made where the network runs: an
    eighth of the bytes of two float views.

    Args:
        images: the set to learn from, all of one shape.
        batch_size: images a step, over all replicas.
        seed: decides the order.
        first_step: the step to begin at.
        worker: whose part of each batch, counted from 0.
        workers: how many equal parts each batch has.

    Returns:
        A dataset of (uint8 `[N, H, W, 3]`, int64 `[N, 2]`: epoch and position of each, as
        `FusedViews` takes them), N being batch_size / workers.

    Raises:
        ValueError: if there are fewer images than a batch holds, they are of several shapes, or the
            workers don't divide a batch.
    """
    order = Order(len(images), batch_size, seed, worker, workers)
    if images.shape is None:
        raise ValueError(
            "images: expected images of one shape; received several, which crop_batches takes"
        )

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        epoch, positions, indices = order.at(step)
        return _read(images, indices), tf.stack([tf.repeat(epoch, order.share), positions], axis=1)

    return _steps(first_step).map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(_READ_AHEAD)


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
    """Endless batches of crops, for views whose other operations run where the network does: a
    quarter of the bytes of float views.

    Args:
        images: the set to learn from, of any shapes.
        policies: what each view is. Only its crop is made here; the flip and what follows are
            `FusedViews(policy.without_crop(), ...)`'s.
        size: side of a view in pixels.
        batch_size, seed, first_step, worker, workers: as `image_batches`.

    Returns:
        A dataset of (crop1, crop2, ..., ids): each crop uint8 `[N, size, size, 3]`; N and ids as
        `image_batches` gives them.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a
            batch.
    """
    order = Order(len(images), batch_size, seed, worker, workers)

    @tf.autograph.experimental.do_not_convert
    def cropped(epoch, position, index):
        draws = [
            sample_params((seed, view), epoch, position[None]) for view in range(len(policies))
        ]
        crops = [resized(part, size) for part in read_crops(images, index, policies, draws)]
        return (*crops, tf.stack([epoch, position]))

    return _one_by_one(cropped, order, first_step).prefetch(_READ_AHEAD)


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
) -> tf.data.Dataset:
    """Endless batches of views for BYOL, all of an image made in the same map.

    Args:
        images: the set to learn from. Where all have one shape, views are made batch by batch, else
            image by image.
        policies: what each view is; two for BYOL.
        size: side of a view in pixels.
        batch_size, seed, first_step, worker, workers: as `image_batches`; the seed decides the
            draws too.
        mean, std: three numbers each: (view - mean) / std is the last operation.

    Returns:
        A dataset of (view1, view2, ...), each float32 `[batch_size / workers, size, size, 3]`.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a
            batch.
    """
    order = Order(len(images), batch_size, seed, worker, workers)
    engines = [HostViews(policy, size, (seed, view)) for view, policy in enumerate(policies)]

    def normalised(views):
        return (views - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)

    @tf.autograph.experimental.do_not_convert
    def batch_of_views(step):
        epoch, positions, indices = order.at(step)
        batch = _read(images, indices)
        return tuple(normalised(engine(batch, epoch, positions)) for engine in engines)

    @tf.autograph.experimental.do_not_convert
    def cropped(epoch, position, index):
        draws = [sample_params(engine.seed, epoch, position[None]) for engine in engines]
        parts = read_crops(images, index, policies, draws)
        crops = [
            engine.resize_one(part, drawn)
            for engine, part, drawn in zip(engines, parts, draws, strict=True)
        ]
        return (*crops, *(drawn[0] for drawn in draws))

    @tf.autograph.experimental.do_not_convert
    def recoloured(*crops_and_draws):
        crops, draws = crops_and_draws[: len(engines)], crops_and_draws[len(engines) :]
        return tuple(
            normalised(engine.recolour(*both))
            for engine, *both in zip(engines, crops, draws, strict=True)
        )

    if images.shape is not None:
        batches = _steps(first_step).map(batch_of_views, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = _one_by_one(cropped, order, first_step).map(
            recoloured, num_parallel_calls=tf.data.AUTOTUNE
        )
    return batches.prefetch(_READ_AHEAD)


def _steps(first_step: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(first_step, tf.int64.max)


def _read(images: Images, indices: tf.Tensor) -> tf.Tensor:
    """uint8 `[N, H, W, 3]` of a set whose images have one shape."""
    batch = tf.numpy_function(images.batch, [indices], tf.uint8, stateful=False)
    return tf.ensure_shape(batch, (*indices.shape, *images.shape))


def _one_by_one(make: Callable, order: Order, first_step: int) -> tf.data.Dataset:
    """Batches of what `make(epoch, position, index)` gives for one image."""

    @tf.autograph.experimental.do_not_convert
    def each_image(step):
        epoch, positions, indices = order.at(step)
        return tf.data.Dataset.from_tensor_slices(
            (tf.repeat(epoch, order.share), positions, indices)
        )

    images = _steps(first_step).flat_map(each_image).map(make, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(order.share, drop_remainder=True)
