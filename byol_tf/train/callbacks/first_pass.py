"""Completes the first pass over a run's photos, at the end of the first epoch."""

import logging
from typing import Any

import keras

from byol_tf.config.schema import Config
from byol_tf.runs.folder import RunFolder
from pipelines.sampling import Order
from pipelines.sources import Source

logger = logging.getLogger(__name__)


class FirstPass(keras.callbacks.Callback):
    """Reads the photos that filled no batch of the first epoch, and logs how many can't be read.

    Photos are opened by their headers, so that unreadable ones are found when they are first used.
    After this each photo to learn from has been used once: those in `skipped.csv` can't be read,
    and all others can.

    Args:
        source: the run's images.
        config: of the run.
        folder: of the run.
    """

    def __init__(self, source: Source, config: Config, folder: RunFolder) -> None:
        super().__init__()
        self.source, self.config, self.folder = source, config, folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Reads what is left after epoch 0. Raises SourceError if too many photos are lost."""
        if epoch or self.source.files is None:
            return
        images, config = self.source.pretrain, self.config
        order = Order(len(images), config.training.batch_size, config.seed, blocks=images.blocks)
        for index in order.remainder(epoch):
            images[int(index)]
        unreadable = self.folder.count_skipped()
        logger.info(
            "all %s photos to learn from have been read once; %s",
            f"{len(images):,}",
            f"{unreadable:,} can't be read (skipped.csv)" if unreadable else "none is unreadable",
        )
