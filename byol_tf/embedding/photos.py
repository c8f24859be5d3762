"""The embeddings of all photos below a folder: those that are kept, and the others by way of the encoder."""

import time
from collections.abc import Callable

import numpy as np

from byol_tf.embedding.encoder_files import EncoderFiles
from byol_tf.embedding.errors import EmbedError
from byol_tf.embedding.progress import Progress
from byol_tf.embedding.store import Store
from pipelines.sources import Heap, Photo

_SAVE_SECONDS = 300.0
"""What is embedded is kept so often: somebody's afternoon shouldn't end with a power cut."""


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
        photos: those with an embedding, ascending by path.
        embeddings: float32 `[n, d]`, a row a photo.
        skipped: name -> reason, of the others.
        reused: how many of the embeddings were there before.
    """

    def __init__(self, heap: Heap, encoder: EncoderFiles, store: Store, facts: dict):
        self.heap, self.encoder, self.store, self.facts = heap, encoder, store, facts
        self.skipped = dict(heap.skipped)
        self._model = None
        kept, embeddings = store.read()
        rows = {photo: kept.get((photo.name, photo.bytes, photo.modified)) for photo in heap.photos}
        self._rows: dict[Photo, np.ndarray] = {photo: embeddings[row] for photo, row in rows.items() if row is not None}
        self.reused = len(self._rows)
        self._changed = len(kept) != self.reused
        self._arrange()

    def embed_missing(self, say: Callable[[str], None]) -> None:
        """Embeds what isn't there yet, and keeps it.

        Raises:
            EmbedError: not one photo can be read, or the encoder gives no numbers for one.
            ProtocolError: see `judged.py`.
            Interrupted: by Ctrl-C.
        """
        missing = [photo for photo in self.heap.photos if photo not in self._rows]
        if missing:
            try:
                self._embed(missing, say)
            except KeyboardInterrupt:
                self._save()
                raise Interrupted(len(self._rows)) from None
        if not self._rows:
            examples = "; ".join(f"{name}: {reason}" for name, reason in sorted(self.skipped.items())[:5])
            raise EmbedError(f"--images {self.heap.folder}: not one photo can be read. For example {examples}")
        if missing or self._changed:
            self._save()

    def _embed(self, missing: list[Photo], say: Callable[[str], None]) -> None:
        from byol_tf.embedding.embedder import Embedder

        embedder, saved = None, time.monotonic()
        with Progress("embedding", len(missing), say) as progress:
            for number, (photo, pixels, reason) in enumerate(self.heap.read_each(missing), start=1):
                if pixels is None:
                    self.skipped[photo.name] = reason
                else:
                    if embedder is None:
                        embedder = Embedder(self.model(), self._put)
                        progress.restart()  # what it took to load the encoder is no photo's time
                    embedder.add(photo, pixels)
                progress.done(number)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    self._save()
                    saved = time.monotonic()
            if embedder is not None:
                embedder.finish()
        self._arrange()

    def _put(self, photo: Photo, row: np.ndarray) -> None:
        if not np.isfinite(row).all():
            raise EmbedError(f"--encoder {self.encoder.path}: expected finite numbers for {photo.name}; received NaN or infinity")
        self._rows[photo] = row

    def _arrange(self) -> None:
        self.photos = [photo for photo in self.heap.photos if photo in self._rows]
        self.embeddings = np.stack([self._rows[photo] for photo in self.photos]) if self.photos else np.empty((0, 0), np.float32)

    def _save(self) -> None:
        if self._rows:
            self._arrange()
            self.store.write(self.photos, self.embeddings, self.skipped, self.facts)

    def model(self):
        """The encoder, loaded when it is needed first."""
        if self._model is None:
            from byol_tf.config_file import load_config
            from byol_tf.judged import file_encoder, run_encoder
            from byol_tf.run_folder import RunFolder
            from byol_tf.saved_encoder import exported_form

            if self.encoder.run:
                folder = RunFolder(self.encoder.path)
                config = load_config(folder.config)
                self._model = exported_form(run_encoder(config, folder), config)
            else:
                self._model = file_encoder(self.encoder.path)
        return self._model

    def embedded(self, pixels: np.ndarray) -> np.ndarray:
        """The embedding of any image, uint8 `[height, width, 3]`: float32 `[d]`."""
        return np.asarray(self.model().predict_on_batch(pixels[None])[0], np.float32)
