"""Collapse that the loss hides: what the online projections of a fixed set of images look like."""

import keras

from byol_tf.evaluation.features import embed
from byol_tf.evaluation.spectrum import effective_rank
from byol_tf.objectives import mean_cosine, spread
from pipelines.sources import Images


class Collapse(keras.callbacks.Callback):
    """Puts three measures of the projections of different images into each epoch's logs. Changes nothing that is learned.

    `projection_std`: standard deviation of the normalised projections times sqrt(d): near 1 when scattered over the sphere, 0 when
    collapsed (SimSiam report, section IV.A). `projection_cosine`: mean cosine between different images: near 0, and 1. `effective_rank`: of
    the representations, how many directions they use.

    Args:
        inference: the inference model around the online encoder (see `networks/inference.py`).
        projector: the online projector.
        images: some hundred images, without labels.
    """

    def __init__(self, inference: keras.Model, projector: keras.Model, images: Images):
        super().__init__()
        self.inference, self.projector, self.images = inference, projector, images

    def measure(self) -> dict[str, float]:
        """The three measures of the network as it is now."""
        representations = embed(self.inference, self.images)
        projections = self.projector(representations, training=False)
        return {
            "projection_std": float(spread(projections)),
            "projection_cosine": float(mean_cosine(projections)),
            "effective_rank": effective_rank(representations),
        }

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.measure())
