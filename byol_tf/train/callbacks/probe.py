"""How good the representation is while it is learned (STL-10 paper, section 3.4)."""

import keras

from byol_tf.evaluate.features import embed
from byol_tf.evaluate.knn import knn_accuracy
from byol_tf.evaluate.logistic import linear_accuracy
from pipelines.sources import Images


class Probe(keras.callbacks.Callback):
    """Puts `probe_accuracy` and `knn_accuracy` into the logs of every n-th and of the last epoch.
    Changes nothing that is learned.

    Args:
        inference: the inference model around the online encoder (see `models/inference.py`).
        train: labelled images that the classifiers learn from.
        test: labelled images that they are judged on.
        epochs: of the whole run, the last of which is always probed.
        every: epochs between probes.
        neighbours, temperature: of the nearest-neighbour vote.
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
        """`probe_accuracy` and `knn_accuracy` of the encoder as it is now, as fractions."""
        train, test = embed(self.inference, self.train), embed(self.inference, self.test)
        features_and_labels = (train, self.train.labels, test, self.test.labels)
        return {
            "probe_accuracy": linear_accuracy(*features_and_labels),
            "knn_accuracy": knn_accuracy(
                *features_and_labels, neighbours=self.neighbours, temperature=self.temperature
            ),
        }

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.epochs:
            logs.update(self.measure())
