"""Photos of many sizes through an encoder, in batches of one size and in bounded memory."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from byol_tf.embed.encoder_files import EncoderFiles
from byol_tf.embed.progress import Progress
from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError
from pipelines.sources import FlatImageFolder

if TYPE_CHECKING:
    import keras

_BATCH, _BATCH_BYTES, _WAITING_BYTES = 250, 2**25, 2**27
"""Of one batch: images, and bytes of their pixels (the encoder makes floats of them, which takes
four times as much); and of the photos of all sizes that wait for others of their size."""


class Embedder:
    """Collects photos, and embeds those of one size together.

    Args:
        model: from uint8 images `[N, H, W, 3]` of any size to `[N, d]`, in inference mode.
        done: called with (what was given with a photo, its representation float32 `[d]`), in no
            order.
    """

    def __init__(self, model: "keras.Model", done: Callable[[object, np.ndarray], None]):
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
        for (key, _), row in zip(
            group,
            self.model.predict_on_batch(np.stack([pixels for _, pixels in group])),
            strict=True,
        ):
            self.done(key, np.asarray(row, np.float32))


_PART_SECONDS, _PART_BYTES = 300.0, 2**28
"""What is new is kept so often: somebody's afternoon shouldn't end with a power cut; and when it is
so much: what is written is a copy."""
_BLOCK_BYTES = 2**22  # of rows that are moved at once


class Interrupted(Exception):
    """Ctrl-C; what was embedded until then is kept. `photos`: how many those are."""

    def __init__(self, photos: int):
        super().__init__()
        self.photos = photos


class EmbeddedPhotos:
    """Photos and their embeddings.

    Args:
        heap: the photos.
        encoder: which encoder.
        store: where embeddings are kept.
        facts: for the store's `about.json`.

    Attributes:
        photos: those with an embedding, ascending by path; from `embed_missing` on.
        embeddings: float32 `[n, d]`, a row a photo; from `embed_missing` on.
        skipped: name -> reason, of the others.
        reused: how many of the embeddings were there before.

    Memory: the embeddings, once.
    """

    def __init__(self, heap: FlatImageFolder, encoder: EncoderFiles, store: Store, facts: dict):
        self.heap, self.encoder, self.store, self.facts = heap, encoder, store, facts
        self.skipped = dict(heap.skipped)
        self._model = None
        kept = store.read(heap.photos)
        self._rows, self._there, self._complete = kept.rows, kept.there, kept.complete
        self._new: list[int] = []  # rows that no file has yet
        self.reused = int(np.count_nonzero(self._there))

    def embed_missing(self, say: Callable[[str], None]) -> None:
        """Embeds what isn't there yet, and keeps it.

        Raises:
            EmbedError: not one photo can be read, or the encoder gives no numbers for one.
            ProtocolError: see `runs/encoders.py`.
            Interrupted: by Ctrl-C.
        """
        missing = np.flatnonzero(~self._there)
        if len(missing):
            try:
                self._embed(missing, say)
            except KeyboardInterrupt:
                self._finish()
                raise Interrupted(len(self.photos)) from None
        if not self._there.any():
            examples = "; ".join(
                f"{name}: {reason}" for name, reason in sorted(self.skipped.items())[:5]
            )
            raise EmbedError(
                f"--images {self.heap.folder}: not one photo can be read. For example {examples}"
            )
        self._finish()

    def _embed(self, missing: np.ndarray, say: Callable[[str], None]) -> None:

        embedder, saved = None, time.monotonic()
        read = self.heap.read_each([self.heap.photos[row] for row in missing])
        with Progress("embedding", len(missing), say) as progress:
            for number, (row, (photo, pixels, reason)) in enumerate(
                zip(missing, read, strict=True), start=1
            ):
                if pixels is None:
                    self.skipped[photo.name] = reason
                else:
                    if embedder is None:
                        embedder = Embedder(self.model(), self._put)
                        progress.restart()  # what it took to load the encoder is no photo's time
                    embedder.add(row, pixels)
                progress.done(number)
                if self._new and (
                    time.monotonic() - saved > _PART_SECONDS
                    or len(self._new) * self._rows[0].nbytes > _PART_BYTES
                ):
                    self.store.write_part(
                        [self.heap.photos[new] for new in self._new], self._rows[self._new]
                    )
                    self._new, saved = [], time.monotonic()
            if embedder is not None:
                embedder.finish()

    def _put(self, row: int, embedding: np.ndarray) -> None:
        if not np.isfinite(embedding).all():
            name = self.heap.photos[row].name
            raise EmbedError(
                f"--encoder {self.encoder.path}: expected finite numbers for {name}; received NaN "
                "or infinity"
            )
        if self._rows is None:
            self._rows = np.empty((len(self._there), len(embedding)), np.float32)
        self._rows[row], self._there[row] = embedding, True
        self._new.append(row)
        self._complete = False

    def _finish(self) -> None:
        """Moves the rows together and has the files hold them all."""
        there = np.flatnonzero(self._there)
        self.photos = [self.heap.photos[row] for row in there]
        if not len(there):
            return
        if len(there) < len(self._there):
            some = max(1, _BLOCK_BYTES // self._rows[0].nbytes)
            for first in range(
                0, len(there), some
            ):  # in place: rows move up only, so none is overwritten before it has moved
                block = there[first : first + some]
                self._rows[first : first + len(block)] = self._rows[block]
        self.embeddings = self._rows[: len(there)]
        if not self._complete:
            self.store.write(self.photos, self.embeddings, self.skipped, self.facts)
        elif len(there) < len(self._there):
            self.store.write_skipped(self.skipped)

    def model(self):
        """The encoder, loaded when it is needed first."""
        if self._model is None:
            from byol_tf.config.loading import load_config
            from byol_tf.models.inference import exported_form
            from byol_tf.runs.encoders import load_encoder_file, load_run_encoder
            from byol_tf.runs.folder import RunFolder

            if self.encoder.run:
                folder = RunFolder(self.encoder.path)
                config = load_config(folder.config)
                self._model = exported_form(
                    load_run_encoder(config, folder), *config.views.preparation
                )
            else:
                self._model = load_encoder_file(self.encoder.path)
        return self._model

    def embedded(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding of any image, uint8 `[height, width, 3]`: float32 `[d]`."""
        return np.asarray(self.model().predict_on_batch(pixels[None])[0], np.float32)
