"""Photos of many sizes through an encoder, in batches of one size and in bounded memory."""

from collections import defaultdict
from collections.abc import Callable

import keras
import numpy as np

_BATCH, _BATCH_BYTES, _WAITING_BYTES = 250, 2**25, 2**27
"""Of one batch: images, and bytes of their pixels (the encoder makes floats of them, which takes four times as much); and of the photos
of all sizes that wait for others of their size."""


class Embedder:
    """Collects photos, and embeds those of one size together.

    Args:
        model: from uint8 images `[N, H, W, 3]` of any size to `[N, d]`, in inference mode.
        done: called with (what was given with a photo, its representation float32 `[d]`), in no order.
    """

    def __init__(self, model: keras.Model, done: Callable[[object, np.ndarray], None]):
        self.model, self.done = model, done
        self._waiting: dict[tuple[int, ...], list[tuple[object, np.ndarray]]] = defaultdict(list)
        self._bytes = 0

    def add(self, key: object, pixels: np.ndarray) -> None:
        """Takes a photo, uint8 `[height, width, 3]`."""
        group = self._waiting[pixels.shape]
        group.append((key, pixels))
        self._bytes += pixels.nbytes
        if len(group) == _BATCH or len(group) * pixels.nbytes >= _BATCH_BYTES:
            self._embed(pixels.shape)
        elif self._bytes >= _WAITING_BYTES:
            self.finish()

    def finish(self) -> None:
        """Embeds what waits."""
        for shape in list(self._waiting):
            self._embed(shape)

    def _embed(self, shape: tuple[int, ...]) -> None:
        group = self._waiting.pop(shape)
        self._bytes -= sum(pixels.nbytes for _, pixels in group)
        for (key, _), row in zip(group, self.model.predict_on_batch(np.stack([pixels for _, pixels in group])), strict=True):
            self.done(key, np.asarray(row, np.float32))
