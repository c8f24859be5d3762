"""A config and its images -> what the model's steps get."""

import tensorflow as tf

from byol_tf.build import fused_views, view_policies, views_in_step
from byol_tf.config import Config
from pipelines.batches import crop_batches, image_batches, view_batches
from pipelines.sources import Images


def batches_of(config: Config, images: Images, first_step: int = 0, worker: int = 0, workers: int = 1) -> tf.data.Dataset:
    """Views, or images or crops of which the step makes them (`views.engine`, `views.placement`), without end.

    Args:
        config: of the run.
        images: to learn from.
        first_step: the step to begin at.
        worker, workers: whose part of each batch.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a batch.
    """
    views, batch_size, seed = config.views, config.training.batch_size, config.seed
    policies, where = view_policies(config), {"first_step": first_step, "worker": worker, "workers": workers}
    if views.engine == "keras_cv":
        return view_batches(images, policies, views.size, batch_size, seed, views.mean, views.std, **where)
    cropped = images.shape is None
    if cropped:
        batches = crop_batches(images, policies, views.size, batch_size, seed, **where)
    else:
        batches = image_batches(images, batch_size, seed, **where)
    if views_in_step(config):
        return batches
    layers = fused_views(config, cropped)

    @tf.autograph.experimental.do_not_convert
    def made(*batch):
        *sources, ids = batch
        return tuple(view(source, ids) for view, source in zip(layers, sources if cropped else sources * len(layers), strict=True))

    return batches.map(made, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
