"""Accuracy of the frozen encoder during training (STL-10 paper, section 3.4)."""

from typing import Any

import keras

from byol_tf.evaluate.features import embed
from byol_tf.evaluate.knn import knn_accuracy
from byol_tf.evaluate.logistic import linear_accuracy
from pipelines.sources import Images


class Probe(keras.callbacks.Callback):
    """Puts `probe_accuracy` and `knn_accuracy` into the logs of every n-th and of the last epoch.

    Args:
        inference: the model from uint8 or uint16 images to representations, around the online
            encoder.
        train: labelled images that the classifiers are fitted on.
        test: labelled images that they are evaluated on.
        epochs: of the complete run.
        every: epochs between probes.
        neighbours: number of neighbours that vote.
        temperature: of their votes' weights.
    """

    def __init__(
        self,
        inference: keras.Model,
        train: Images,
        test: Images,
        epochs: int,
        every: int = 1,
        neighbours: int = 20,
        temperature: float = 0.07,
    ):
        super().__init__()
        self.inference, self.train, self.test = inference, train, test
        self.epochs, self.every = epochs, every
        self.neighbours, self.temperature = neighbours, temperature

    def measure(self) -> dict[str, float]:
        """Returns `probe_accuracy` and `knn_accuracy` of the encoder now, as fractions."""
        train, test = embed(self.inference, self.train), embed(self.inference, self.test)
        features_and_labels = (train, self.train.labels, test, self.test.labels)
        return {
            "probe_accuracy": linear_accuracy(*features_and_labels),  # type: ignore[arg-type]  # labelled
            "knn_accuracy": knn_accuracy(
                *features_and_labels,  # type: ignore[arg-type]  # labelled
                neighbours=self.neighbours,
                temperature=self.temperature,
            ),
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures, if this epoch is to be probed."""
        due = (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs
        if due and logs is not None:
            logs.update(self.measure())
