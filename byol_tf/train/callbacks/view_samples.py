"""A figure of the views that the network is trained on, before its first step."""

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.runs.plots import views_figure
from byol_tf.train.tensorboard import EventLog
from pipelines.policy import ViewPolicy
from pipelines.sampling import Order
from pipelines.sources import Images
from pipelines.views.fused import FusedViews
from pipelines.views.host import HostViews
from pipelines.views.host_crops import resize_crop
from pipelines.views.random_params import crop_boxes, pixel_boxes, sample_params

logger = logging.getLogger(__name__)

_IMAGES_SHOWN = 8


class ViewPictures(keras.callbacks.Callback):
    """Writes `views.png` and a TensorBoard image when training starts.

    They show the first images of the first batch with the crop boxes drawn on them, and both views
    below, made by the engine that training uses.

    Args:
        path: the PNG.
        events: TensorBoard's.
        images: the pre-training images.
        config: of the run; its batch size decides which images come first.
    """

    def __init__(self, path: Path, events: EventLog, images: Images, config: Config):
        super().__init__()
        self.path, self.events, self.images, self.config = path, events, images, config

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the figure; a full disk is logged and ends nothing."""
        config, first_step = self.config, tf.constant(0, tf.int64)
        epoch, positions, indices = Order(
            len(self.images), config.training.batch_size, config.seed, blocks=self.images.blocks
        ).at(first_step)
        positions, indices = positions[:_IMAGES_SHOWN], indices[:_IMAGES_SHOWN].numpy()
        originals = [self.images[int(index)] for index in indices]
        params = sample_params(config.seed, 2, epoch, positions)
        boxes, views = [], []
        for number, policy in enumerate((config.views.first, config.views.second)):
            boxes.append(
                [
                    crop_boxes(policy, params[i : i + 1, number], *image.shape[:2])[0].numpy()
                    for i, image in enumerate(originals)
                ]
            )
            views.append(self._views(policy, number, originals, params).numpy())
        try:
            views_figure(self.path, originals, np.array(boxes), np.array(views))
            picture = tf.io.decode_png(self.path.read_bytes(), channels=3)
        except OSError as error:
            logger.warning(
                "%s not written: %s. The run continues without it", self.path.name, error
            )
            return
        self.events.add(0, lambda: tf.summary.image("views", picture[None]))

    def _views(
        self, policy: ViewPolicy, number: int, originals: list[np.ndarray], params: tf.Tensor
    ) -> tf.Tensor:
        """Returns one view of each image, float32 `[n, size, size, channels]` in [0, 1]."""
        size, own = self.config.views.size, params[:, number]
        if self.config.views.engine == "fused":
            if self.images.shape is None:  # as in training, the host crops photos of several sizes
                boxes = [
                    pixel_boxes(policy, own[i : i + 1], *image.shape[:2])[0].numpy()
                    for i, image in enumerate(originals)
                ]
                originals = [
                    resize_crop(image[y1:y2, x1:x2], size)
                    for image, (y1, x1, y2, x2) in zip(originals, boxes, strict=True)
                ]
                policy = policy.without_crop()
            layer = FusedViews(
                policy,
                size,
                number,
                (0.0,) * self.images.channels,
                (1.0,) * self.images.channels,
                exact=self.config.views.exact,
                dtype="float32",
            )
            return layer(np.stack(originals), params)
        engine = HostViews(policy, size, self.config.views.engine)
        if self.images.shape is not None:
            crops = engine.crop(tf.constant(np.stack(originals)), own)
        else:
            crops = tf.stack(
                [
                    engine.crop_one(tf.constant(image), own[i : i + 1])
                    for i, image in enumerate(originals)
                ]
            )
        return engine.augment(crops, own)
