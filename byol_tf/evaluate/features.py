"""Representations of a set of images."""

import math
from collections.abc import Callable

import keras
import numpy as np

from pipelines.sources import Images

_BATCH_SIZE = 250
_BATCH_BYTES = 2**26  # of uint8 pixels: resizing takes several times as much, in float32


def embed(
    model: keras.Model,
    images: Images,
    crop: Callable[[np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Embeds images in the order of their indices.

    Args:
        model: from uint8 or uint16 images `[N, H, W, channels]` to `[N, d]`, in inference mode
            (see `models/inference.py`).
        images: n images. Those of different sizes are embedded one by one, large ones in small
            batches.
        crop: applied to such images before the model. Default: the model's own resize alone.

    Returns:
        float32 `[n, d]`.
    """
    batch_size = 1
    if images.shape is not None:
        batch_size = min(_BATCH_SIZE, max(1, _BATCH_BYTES // math.prod(images.shape)))
    outputs = []
    for first in range(0, len(images), batch_size):
        indices, following = np.split(
            np.arange(first, min(first + 2 * batch_size, len(images))), [batch_size]
        )
        images.prefetch(following)
        batch = images.batch(indices) if images.shape is not None else images[first][None]
        outputs.append(model.predict_on_batch(batch if crop is None else crop(batch)))
    return np.concatenate(outputs).astype(np.float32, copy=False)
