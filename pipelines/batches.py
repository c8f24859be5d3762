"""Images and two policies -> an endless, seeded tf.data stream of view pairs that can begin at any step.

Order and draws are functions of (seed, epoch, position): step k's batch is the same whether the stream began at 0 or at k, and nothing is
replayed to get there. Each epoch leaves out another remainder that fills no batch.
"""

from collections.abc import Sequence

import tensorflow as tf

from pipelines.host_views import HostViews, draw
from pipelines.policy import ViewPolicy
from pipelines.sources import Images

_READ_AHEAD = 4


def batch_indices(step: tf.Tensor, seed: int, count: int, batch_size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which images step `step` sees.

    Args:
        step: int64 scalar, 0 for the first of the run.
        seed: the run's.
        count: images in the set.
        batch_size: images a step; at most `count`.

    Returns:
        epoch (int64 scalar), positions in the epoch (int64 `[batch_size]`, consecutive) and image indices (int64 `[batch_size]`): a
        permutation of the images, drawn for each epoch.
    """
    steps_per_epoch = count // batch_size
    epoch = step // steps_per_epoch
    positions = (step % steps_per_epoch) * batch_size + tf.range(batch_size, dtype=tf.int64)
    order_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
    indices = tf.random.experimental.index_shuffle(positions, order_seed, tf.constant(count - 1, tf.int64))
    return epoch, positions, indices


def view_batches(
    images: Images,
    policies: tuple[ViewPolicy, ViewPolicy],
    size: int,
    batch_size: int,
    seed: int,
    mean: Sequence[float],
    std: Sequence[float],
    first_step: int = 0,
) -> tf.data.Dataset:
    """Endless pairs of views for BYOL, both made from the same image in the same map.

    Args:
        images: the set to learn from. Where all have one shape, views are made batch by batch, else image by image.
        policies: what the first and the second view are.
        size: side of a view in pixels.
        batch_size: images a step, over all replicas.
        seed: decides order and draws.
        mean, std: three numbers each: (view - mean) / std is the last operation.
        first_step: the step to begin at.

    Returns:
        A dataset of (view1, view2), each float32 `[batch_size, size, size, 3]`.

    Raises:
        ValueError: if there are fewer images than a batch holds.
    """
    count = len(images)
    if count < batch_size:
        raise ValueError(f"batch_size: expected at most the number of images, {count}; received {batch_size}")
    engines = [HostViews(policy, size, (seed, view)) for view, policy in enumerate(policies)]

    def normalised(views):
        return (views - tf.constant(mean, tf.float32)) / tf.constant(std, tf.float32)

    def read(indices):
        batch = tf.numpy_function(images.batch, [indices], tf.uint8, stateful=False)
        return tf.ensure_shape(batch, (batch_size, *images.shape))

    def read_one(index):
        return tf.ensure_shape(tf.numpy_function(images.__getitem__, [index], tf.uint8, stateful=False), (None, None, 3))

    @tf.autograph.experimental.do_not_convert
    def batch_of_views(step):
        epoch, positions, indices = batch_indices(step, seed, count, batch_size)
        batch = read(indices)
        return tuple(normalised(engine(batch, epoch, positions)) for engine in engines)

    @tf.autograph.experimental.do_not_convert
    def cropped(epoch, position, index):
        image = read_one(index)
        draws = [draw(engine.seed, epoch, position[None]) for engine in engines]
        crops = [engine.crop_one(image, drawn) for engine, drawn in zip(engines, draws, strict=True)]
        return [*crops, *(drawn[0] for drawn in draws)]

    @tf.autograph.experimental.do_not_convert
    def recoloured(*crops_and_draws):
        crops, draws = crops_and_draws[:2], crops_and_draws[2:]
        return tuple(normalised(engine.recolour(*both)) for engine, *both in zip(engines, crops, draws, strict=True))

    @tf.autograph.experimental.do_not_convert
    def each_image(step):
        epoch, positions, indices = batch_indices(step, seed, count, batch_size)
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, batch_size), positions, indices))

    steps = tf.data.Dataset.range(first_step, tf.int64.max)
    if images.shape is not None:
        batches = steps.map(batch_of_views, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        batches = steps.flat_map(each_image).map(lambda *where: tuple(cropped(*where)), num_parallel_calls=tf.data.AUTOTUNE)
        batches = batches.batch(batch_size, drop_remainder=True).map(recoloured, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.prefetch(_READ_AHEAD)
