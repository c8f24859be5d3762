"""Images of a run: samples of its source, and training batches."""

import numpy as np
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError
from byol_tf.models.from_config import fused_views, view_policies, views_in_step
from byol_tf.runs.splits import hold_out, require_labels
from pipelines.batches import crop_batches, image_batches, view_batches
from pipelines.sources import Images, Source, balanced_indices, subset
from pipelines.views.host_colors import host_colors

COLLAPSE_IMAGES = 512
"""Images that collapse is measured on: as many as ResNet-18's representation has features, so that
its effective rank can show."""
_PROBE_TRAIN_LIMIT, _PROBE_TEST_LIMIT = 50_000, 10_000


def probe_images(config: Config, source: Source) -> tuple[Images, Images] | None:
    """Draws the probe's labelled images, class-balanced, by the run's seed.

    Args:
        config: of the run, whose `probe.split` says what the probe is evaluated on.
        source: the run's images.

    Returns:
        (images that the probe is fitted on, images that it is evaluated on); None where there are
        no labelled ones.

    Raises:
        ProtocolError: if images are to be held out and no class has two.
    """
    probe, train, test = config.probe, source.train, source.test
    if train is not None and probe.split == "held_out":
        train, test = hold_out(train, config.seed)
    if train is None or test is None:
        return None
    return (
        _balanced(train, probe.train_images or _PROBE_TRAIN_LIMIT, config.seed),
        _balanced(test, probe.test_images or _PROBE_TEST_LIMIT, config.seed),
    )


def _balanced(images: Images, count: int, seed: int) -> Images:
    indices = balanced_indices(require_labels(images), min(count, len(images)), seed)
    return subset(images, indices)


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


def check_view_engine(config: Config) -> None:
    """Raises `ConfigError` if keras-cv makes the views of a config and can't be imported."""
    if config.views.engine != "fused":
        try:
            host_colors(config.views.engine)
        except ImportError as error:
            raise ConfigError(str(error)) from error


def train_batches(
    config: Config, images: Images, first_step: int = 0, worker: int = 0, workers: int = 1
) -> tf.data.Dataset:
    """Builds the endless stream of training batches.

    Depending on `views.engine` and `views.placement` a batch has views, or images or crops of
    which the training step makes views.

    Args:
        config: of the run.
        images: to learn from.
        first_step: the step that the stream starts at.
        worker: index of the worker that the stream is for.
        workers: number of workers that share each batch.

    Returns:
        The dataset.

    Raises:
        ValueError: if there are fewer images than a batch holds, or the workers don't divide a
            batch.
    """
    views, batch_size, seed = config.views, config.training.batch_size, config.seed
    size, mean, std = views.preparation
    policies = view_policies(config)
    position = {"first_step": first_step, "worker": worker, "workers": workers}
    if views.engine != "fused":
        return view_batches(
            images,
            policies,
            size,
            batch_size,
            seed,
            mean,
            std,
            **position,
            engine=views.engine,
        )
    cropped = images.shape is None
    if cropped:
        batches = crop_batches(images, policies, size, batch_size, seed, **position)
    else:
        batches = image_batches(images, batch_size, seed, **position, view_count=len(policies))
    if views_in_step(config):
        return batches
    layers = fused_views(config, cropped)

    @tf.autograph.experimental.do_not_convert
    def make_views(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        *inputs, params = batch  # a tensor of crops for each view, or one of images for both
        inputs = inputs if cropped else inputs * len(layers)
        return tuple(layer(pixels, params) for layer, pixels in zip(layers, inputs, strict=True))

    return batches.map(make_views, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
