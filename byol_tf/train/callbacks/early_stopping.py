"""Callback that ends a run which no longer improves."""

import logging
from typing import Any

import keras

from byol_tf.config.schema import Config
from byol_tf.runs.best_epoch import METRICS, best_epoch, stops_early
from byol_tf.train.multi_worker import Workers

logger = logging.getLogger(__name__)


class EarlyStopping(keras.callbacks.Callback):
    """Ends `fit` on all workers once `monitor.early_stopping` measurements didn't improve.

    Keras' own keeps its counts in memory; here the rows decide, which a checkpoint has.

    Args:
        config: of the run.
        rows: of the run so far, on the chief; the list grows with its history.
        workers: of the run. Each of them has this callback, as its last one.
    """

    def __init__(self, config: Config, rows: list[dict[str, float]], workers: Workers):
        super().__init__()
        self.config, self.rows, self.workers = config, rows, workers

    def stops(self) -> bool:
        """Returns the chief's decision after its last row; each worker has to call it."""
        monitor = self.config.monitor
        if monitor.early_stopping is None:
            return False
        return bool(self.workers.gather(int(stops_early(self.rows, monitor)))[0])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Ends `fit` after this epoch, if the chief decides so."""
        if self.stops():
            self.model.stop_training = True
            if self.workers.chief:
                metric = self.config.monitor.metric
                logger.info(
                    "stopping early after epoch %d: the %s is highest after epoch %d",
                    epoch + 1,
                    METRICS[metric],
                    best_epoch(self.rows, metric),
                )
