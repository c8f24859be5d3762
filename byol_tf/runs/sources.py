"""Image sources of configs; importable without TensorFlow."""

import logging
from typing import Any

from byol_tf.config.schema import Config
from byol_tf.runs.folder import RunFolder, read_environment
from pipelines.sources import GivenImages, PixelFormat, Source, SourceInfo, unreadable_examples

logger = logging.getLogger(__name__)


def source_options(config: Config, images: GivenImages | None = None) -> dict[str, Any]:
    """Returns the arguments for `open_source` and `plan_source` that a config names.

    Args:
        config: of a run.
        images: those of a run whose `data.source` is "arrays".
    """
    data = config.data
    return {
        "source": data.source,
        "root": data.root,
        "layout": data.layout,
        "archive": data.archive,
        "pretrain": data.pretrain,
        "pretrain_images": data.pretrain_images,
        "image_size": data.image_size,
        "channels": data.channels,
        "depth": data.depth,
        "range": data.range,
        "cache": data.cache,
        "max_unreadable_fraction": data.max_unreadable_fraction,
        "seed": config.seed,
        "images": images,
    }


def pixel_format(config: Config) -> PixelFormat:
    """Returns channels, depth and range of a config's images."""
    return PixelFormat(config.data.channels, config.data.depth, config.data.range)


def log_findings(source: Source, table: str | None = None) -> None:
    """Logs what reading the images has shown of them.

    Args:
        source: the images.
        table: name of the file that lists all that can't be read, if there is one.
    """
    for line in source.findings:
        logger.info("%s", line)
    if source.skipped:
        logger.warning(
            "%s photo(s) can't be read and are skipped%s: %s",
            f"{len(source.skipped):,}",
            f" ({table})" if table else "",
            unreadable_examples(dict(source.skipped)),
        )


def warn_of_other_images(folder: RunFolder, images: Source | SourceInfo) -> None:
    """Logs a warning if own photos aren't as they were when a run was started.

    Args:
        folder: of the run.
        images: those that its config names, as they are now.
    """
    if isinstance(images, Source) and images.manifest is None:
        return
    try:
        fingerprint = read_environment(folder.environment)["data_fingerprint"]
    except (OSError, ValueError, KeyError):  # a record that nothing depends on
        return
    if images.fingerprint not in (None, fingerprint):
        logger.warning(
            "the photos aren't those that %s was trained on: some were added, changed or removed, "
            "and what follows is of the photos that are there now",
            folder.root,
        )
