"""Which images a config means: what a source is asked for, and which of its labelled images a probe
takes."""

import numpy as np
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.models.from_config import fused_views, view_policies, views_in_step
from pipelines.batches import crop_batches, image_batches, view_batches
from pipelines.sources import Images, Source, balanced_indices, subset

COLLAPSE_IMAGES = 512
"""Images that collapse is measured on: as many as ResNet-18's representation has features, so that
its effective rank can show."""
_PROBE_TRAIN_LIMIT, _PROBE_TEST_LIMIT = 50_000, 10_000


def source_options(config: Config) -> dict:
    """What `open_source` and `plan_source` need to know of a config."""
    data = config.data
    return {
        "source": data.source,
        "root": data.root,
        "archive": data.archive,
        "pretrain": data.pretrain,
        "pretrain_images": data.pretrain_images,
        "image_size": data.image_size,
        "cache": data.cache,
        "max_unreadable_fraction": data.max_unreadable_fraction,
        "seed": config.seed,
    }


def probe_images(config: Config, source: Source) -> tuple[Images, Images]:
    """The labelled images that the probe learns from, and those that it is judged on:
    class-balanced, drawn by the seed."""
    probe, seed = config.probe, config.seed
    wanted = (
        (source.train, probe.train_images, _PROBE_TRAIN_LIMIT),
        (source.test, probe.test_images, _PROBE_TEST_LIMIT),
    )
    train, test = (
        subset(each, balanced_indices(each.labels, min(count or limit, len(each)), seed))
        for each, count, limit in wanted
    )
    return train, test


def sample_pretrain_images(config: Config, source: Source, count: int = COLLAPSE_IMAGES) -> Images:
    """Draws a random sample of the images to learn from.

    Sources list their images in the order of their paths, so that the first ones of a folder with
    class folders all show one class. A larger `count` contains every smaller one.

    Args:
        config: of the run, whose seed decides which images are drawn.
        source: the run's images.
        count: size of the sample; with fewer images than that, all of them.

    Returns:
        The sampled images, in the order of the source.
    """
    order = np.random.default_rng(config.seed).permutation(len(source.pretrain))
    return subset(source.pretrain, np.sort(order[:count]))


def train_batches(
    config: Config, images: Images, first_step: int = 0, worker: int = 0, workers: int = 1
) -> tf.data.Dataset:
    """Views, or images or crops of which the step makes them (`views.engine`, `views.placement`),
    without end.

    Args:
        config: of the run.
        images: to learn from.
        first_step: the step to begin at.
        worker, workers: whose part of each batch.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a
            batch.
    """
    views, batch_size, seed = config.views, config.training.batch_size, config.seed
    policies, where = (
        view_policies(config),
        {"first_step": first_step, "worker": worker, "workers": workers},
    )
    if views.engine == "keras_cv":
        return view_batches(
            images, policies, views.size, batch_size, seed, views.mean, views.std, **where
        )
    cropped = images.shape is None
    if cropped:
        batches = crop_batches(images, policies, views.size, batch_size, seed, **where)
    else:
        batches = image_batches(images, batch_size, seed, **where)
    if views_in_step(config):
        return batches
    layers = fused_views(config, cropped)

    @tf.autograph.experimental.do_not_convert
    def make_views(*batch):
        *sources, ids = batch
        return tuple(
            view(source, ids)
            for view, source in zip(
                layers, sources if cropped else sources * len(layers), strict=True
            )
        )

    return batches.map(make_views, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
