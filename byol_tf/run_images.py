"""Which images a config means: what a source is asked for, and which of its labelled images a probe takes."""

from byol_tf.config import Config
from pipelines.sources import Images, Source, balanced_indices, subset

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
        "max_bad_fraction": data.max_bad_fraction,
        "seed": config.seed,
    }


def probe_images(config: Config, source: Source) -> tuple[Images, Images]:
    """The labelled images that the probe learns from, and those that it is judged on: class-balanced, drawn by the seed."""
    probe, seed = config.probe, config.seed
    wanted = (source.train, probe.train_images, _PROBE_TRAIN_LIMIT), (source.test, probe.test_images, _PROBE_TEST_LIMIT)
    train, test = (subset(each, balanced_indices(each.labels, min(count or limit, len(each)), seed)) for each, count, limit in wanted)
    return train, test
