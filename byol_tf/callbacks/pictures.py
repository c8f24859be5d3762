"""What the network is going to see, before its first step."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from byol_tf.figures import views_figure
from pipelines.batches import batch_indices
from pipelines.host_views import HostViews, crop_boxes, draw
from pipelines.policy import ViewPolicy
from pipelines.sources import Images

_SHOWN = 8


class ViewPictures(keras.callbacks.Callback):
    """Writes `views.png` and a TensorBoard picture of the first batch's first eight images: crop boxes drawn on them, both views below.

    Args:
        path: the PNG.
        writer: a `tf.summary` writer.
        images: the set that is learned from.
        policies: of the first and the second view.
        size: side of a view in pixels.
        batch_size: as in training, since it decides which images come first.
        seed: the run's.
    """

    def __init__(self, path: Path, writer, images: Images, policies: tuple[ViewPolicy, ViewPolicy], size: int, batch_size: int, seed: int):
        super().__init__()
        self.path, self.writer = path, writer
        self.images, self.policies, self.size = images, policies, size
        self.batch_size, self.seed = batch_size, seed

    def on_train_begin(self, logs=None):
        epoch, positions, indices = batch_indices(tf.constant(0, tf.int64), self.seed, len(self.images), self.batch_size)
        positions, indices = positions[:_SHOWN], indices[:_SHOWN].numpy()
        originals = [self.images[int(index)] for index in indices]
        boxes, views = [], []
        for number, policy in enumerate(self.policies):
            engine = HostViews(policy, self.size, (self.seed, number))
            draws = draw(engine.seed, epoch, positions)
            each = [(image, draws[i : i + 1]) for i, image in enumerate(originals)]
            boxes.append([crop_boxes(policy, d, *image.shape[:2])[0].numpy() for image, d in each])
            if self.images.shape is not None:
                crops = engine.crop(tf.constant(np.stack(originals)), draws)
            else:
                crops = tf.stack([engine.crop_one(tf.constant(image), d) for image, d in each])
            views.append(engine.recolour(crops, draws).numpy())
        views_figure(self.path, originals, np.array(boxes), np.array(views))
        picture = tf.io.decode_png(self.path.read_bytes(), channels=3)
        with self.writer.as_default(step=0):
            tf.summary.image("views", picture[None])
