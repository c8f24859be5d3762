"""Images and view policies -> an endless, seeded tf.data stream of views that can begin at any step.

Order and draws are functions of (seed, epoch, position): step k's batch is the same whether the stream began at 0 or at k, and nothing is
replayed to get there. Each epoch leaves out another remainder that fills no batch. Several workers take a part of each batch, so they see
together what one would see, and each reads its own images only.
"""

from collections.abc import Sequence

import tensorflow as tf

from pipelines.draws import draw
from pipelines.host_views import HostViews
from pipelines.policy import ViewPolicy
from pipelines.sources import Images

_READ_AHEAD = 4


def batch_indices(
    step: tf.Tensor, seed: int, count: int, batch_size: int, worker: int = 0, workers: int = 1
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which images a worker sees at step `step`: rows worker x batch_size / workers and those that follow of the whole batch.

    Args:
        step: int64 scalar, 0 for the first of the run.
        seed: the run's.
        count: images in the set.
        batch_size: images a step, over all workers; at most `count`.
        worker: which of the workers, counted from 0.
        workers: a divisor of `batch_size`.

    Returns:
        epoch (int64 scalar), positions in the epoch (int64 `[batch_size / workers]`, consecutive) and image indices (int64, as many): of a
        permutation of the images, drawn for each epoch.
    """
    steps_per_epoch = count // batch_size
    epoch = step // steps_per_epoch
    share = batch_size // workers
    positions = (step % steps_per_epoch) * batch_size + tf.range(worker * share, (worker + 1) * share, dtype=tf.int64)
    order_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
    indices = tf.random.experimental.index_shuffle(positions, order_seed, tf.constant(count - 1, tf.int64))
    return epoch, positions, indices


def image_batches(images: Images, batch_size: int, seed: int, first_step: int = 0, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
    """Endless batches of images as they are, for views that are made where the network runs: an eighth of the bytes of two float views.

    Args:
        images: the set to learn from, all of one shape.
        batch_size: images a step, over all replicas.
        seed: decides the order.
        first_step: the step to begin at.
        worker: whose part of each batch, counted from 0.
        workers: how many equal parts each batch has.

    Returns:
        A dataset of (uint8 `[N, H, W, 3]`, int64 `[N, 2]`: epoch and position of each, as `FusedViews` takes them), N being
        batch_size / workers.

    Raises:
        ValueError: if there are fewer images than a batch holds, they are of several shapes, or the workers don't divide a batch.
    """
    count = _checked_count(images, batch_size, worker, workers)
    if images.shape is None:
        raise ValueError("images: expected images of one shape; received several. Resize them all to one side when they are read")

    @tf.autograph.experimental.do_not_convert
    def batch(step):
        epoch, positions, indices = batch_indices(step, seed, count, batch_size, worker, workers)
        return _read(images, indices), tf.stack([tf.repeat(epoch, batch_size // workers), positions], axis=1)

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    return steps.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(_READ_AHEAD)


def _checked_count(images: Images, batch_size: int, worker: int, workers: int) -> int:
    if len(images) < batch_size:
        raise ValueError(f"batch_size: expected at most the number of images, {len(images)}; received {batch_size}")
    if workers < 1 or batch_size % workers:
        raise ValueError(f"workers: expected a divisor of batch_size ({batch_size}); received {workers}")
    if not 0 <= worker < workers:
        raise ValueError(f"worker: expected a number from 0 to {workers - 1}, as there are {workers} workers; received {worker}")
    return len(images)


def _read(images: Images, indices: tf.Tensor) -> tf.Tensor:
    """uint8 `[N, H, W, 3]` of a set whose images have one shape."""
    batch = tf.numpy_function(images.batch, [indices], tf.uint8, stateful=False)
    return tf.ensure_shape(batch, (*indices.shape, *images.shape))


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
        images: the set to learn from. Where all have one shape, views are made batch by batch, else image by image.
        policies: what each view is; two for BYOL.
        size: side of a view in pixels.
        batch_size: images a step, over all replicas.
        seed: decides order and draws.
        mean, std: three numbers each: (view - mean) / std is the last operation.
        first_step: the step to begin at.
        worker: whose part of each batch, counted from 0.
        workers: how many equal parts each batch has.

    Returns:
        A dataset of (view1, view2, ...), each float32 `[batch_size / workers, size, size, 3]`.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a batch.
    """
    count = _checked_count(images, batch_size, worker, workers)
    engines = [HostViews(policy, size, (seed, view)) for view, policy in enumerate(policies)]

    def normalised(views):
        return (views - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)

    def read_one(index):
        return tf.ensure_shape(tf.numpy_function(images.__getitem__, [index], tf.uint8, stateful=False), (None, None, 3))

    @tf.autograph.experimental.do_not_convert
    def batch_of_views(step):
        epoch, positions, indices = batch_indices(step, seed, count, batch_size, worker, workers)
        batch = _read(images, indices)
        return tuple(normalised(engine(batch, epoch, positions)) for engine in engines)

    @tf.autograph.experimental.do_not_convert
    def cropped(epoch, position, index):
        image = read_one(index)
        draws = [draw(engine.seed, epoch, position[None]) for engine in engines]
        crops = [engine.crop_one(image, drawn) for engine, drawn in zip(engines, draws, strict=True)]
        return [*crops, *(drawn[0] for drawn in draws)]

    @tf.autograph.experimental.do_not_convert
    def recoloured(*crops_and_draws):
        crops, draws = crops_and_draws[: len(engines)], crops_and_draws[len(engines) :]
        return tuple(normalised(engine.recolour(*both)) for engine, *both in zip(engines, crops, draws, strict=True))

    @tf.autograph.experimental.do_not_convert
    def each_image(step):
        epoch, positions, indices = batch_indices(step, seed, count, batch_size, worker, workers)
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, batch_size // workers), positions, indices))

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    if images.shape is not None:
        batches = steps.map(batch_of_views, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = steps.flat_map(each_image).map(lambda *where: tuple(cropped(*where)), num_parallel_calls=tf.data.AUTOTUNE)
        batches = batches.batch(batch_size // workers, drop_remainder=True).map(recoloured, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(_READ_AHEAD)
