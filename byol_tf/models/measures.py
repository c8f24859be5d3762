"""Loss and collapse measures that a step logs: over its views, the replicas and the epoch."""

from collections.abc import Collection, Mapping

import keras
import tensorflow as tf

from byol_tf.models.losses import mean_cosine, projection_std

Measures = dict[str, tf.Tensor]
"""Float32 scalars by name."""


def collapse_measures(projections: Collection[tf.Tensor]) -> Measures:
    """Returns `projection_std` and `projection_cosine`, float32 scalars: means over the views.

    Args:
        projections: `[N, p]` of each view.
    """
    return {
        "projection_std": tf.reduce_mean([projection_std(z) for z in projections]),
        "projection_cosine": tf.reduce_mean([mean_cosine(z) for z in projections]),
    }


def mean_over_replicas(measures: Measures) -> Measures:
    """Returns the mean of each measure over the replicas, so that all hold the same bits."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return measures
    values = context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.stack(list(measures.values())))
    return dict(zip(measures, tf.unstack(values), strict=True))


def mean_over_images(measures: Measures, images: tf.Tensor) -> tuple[Measures, tf.Tensor]:
    """Returns the mean of each measure over the images of all replicas, and their number.

    Args:
        measures: means over this replica's images; NaN if it has none.
        images: number of this replica's images, a float32 scalar; 0 is allowed.
    """
    sums = tf.where(images > 0.0, tf.stack(list(measures.values())) * images, 0.0)
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        sums, images = context.all_reduce(tf.distribute.ReduceOp.SUM, [sums, images])
    return dict(zip(measures, tf.unstack(sums / images), strict=True)), images


def update_means(
    means: Mapping[str, keras.metrics.Mean], measures: Measures, weight: tf.Tensor
) -> None:
    """Adds measures to the epoch's means.

    Args:
        means: of the epoch so far.
        measures: one for each of the means.
        weight: a float32 scalar; with 0 a measure isn't added, even if it is NaN.
    """
    for name, mean in means.items():
        mean.update_state(tf.where(weight > 0.0, measures[name], 0.0), sample_weight=weight)
