"""Photos of all sizes through an encoder, in batches of one size and in bounded memory."""

import argparse
import functools
import logging
import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from byol_tf.command_line import add_path
from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError, WorkKept
from byol_tf.logs import counted
from byol_tf.runs.encoder_files import EncoderFiles
from pipelines.sources import FlatImages, Photos

if TYPE_CHECKING:
    import keras

_BATCH_SIZE = 250
_BATCH_BYTES = 2**25  # of uint8 pixels: the encoder converts them to floats, four times as large
_PENDING_BYTES = 2**27  # of photos of all sizes that wait for others of their size
_PART_SECONDS = 60.0  # most time that a kill or a power cut costs
_PART_BYTES = 2**23  # of new rows, which are in memory until they are in a part

logger = logging.getLogger(__name__)


class BatchEmbedder:
    """Collects photos, and embeds those of one size together.

    Which photos share a batch depends only on those added since their sizes were last embedded. So
    where a command is killed, and all embeddings are stored that a call has returned, the next one
    makes the same batches of the others, and the same embeddings to the bit.

    Args:
        model: from images `[N, H, W, channels]` of any size to `[N, d]`, in inference mode.
    """

    def __init__(self, model: "keras.Model"):
        self.model = model
        self._pending: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._bytes = 0

    def add(self, key: int, pixels: np.ndarray) -> dict[int, np.ndarray]:
        """Takes a photo, `[height, width, channels]`.

        Returns:
            The embeddings, float32 `[d]`, of the photos that have been embedded by this call, by
            key.
        """
        group = self._pending[pixels.shape]
        group.append((key, pixels))
        self._bytes += pixels.nbytes
        if len(group) == _BATCH_SIZE or len(group) * pixels.nbytes >= _BATCH_BYTES:
            return self._embed(pixels.shape)
        return self.finish() if self._bytes >= _PENDING_BYTES else {}

    def finish(self) -> dict[int, np.ndarray]:
        """Embeds the photos that wait for others; returns their embeddings as `add` does."""
        embeddings: dict[int, np.ndarray] = {}
        for shape in list(self._pending):
            embeddings |= self._embed(shape)
        return embeddings

    def _embed(self, shape: tuple[int, ...]) -> dict[int, np.ndarray]:
        keys, photos = zip(*self._pending.pop(shape), strict=True)
        self._bytes -= sum(pixels.nbytes for pixels in photos)
        embeddings = np.asarray(self.model.predict_on_batch(np.stack(photos)), np.float32)
        return dict(zip(keys, embeddings, strict=True))


def add_photo_arguments(parser: argparse.ArgumentParser, outputs: str, model: str) -> None:
    """Adds `--images` and `--out` to the parser of a command that runs a model on a folder.

    Args:
        parser: of the command.
        outputs: the folder below which `default_folder` has the command's outputs.
        model: of whose files the name of the output folder has a digest.
    """
    add_path(
        parser,
        "--images",
        "the folder of photos, flat or nested, or shards of them: a file or a pattern",
        required=True,
    )
    add_path(
        parser,
        "--out",
        f"the output folder (default: {outputs}/<folder>-<digest of {model} and folder>)",
    )


class EmbeddedPhotos:
    """Photos and their embeddings, which go to the disk as they come.

    Args:
        images: the folder of photos.
        encoder: the encoder's files.
        store: keeps the embeddings.
        facts: for the store's `about.json`.

    Attributes:
        photos: those with an embedding, ascending by path; from `embed_missing` on.
        embeddings: a memory map of float32 `[n, d]`, a row per photo; from `embed_missing` on.
        skipped: from name to reason, of the other photos.
        reused: number of embeddings that were stored before.
    """

    photos: Photos
    embeddings: np.ndarray

    def __init__(
        self,
        images: FlatImages,
        encoder: EncoderFiles,
        store: Store,
        facts: dict,
    ):
        self.images, self.encoder, self.store, self.facts = images, encoder, store, facts
        self.skipped = dict(images.skipped)
        stored = store.read(images.photos)
        self._present, self._complete = stored.present, stored.complete
        self._unsaved: dict[int, np.ndarray] = {}  # embeddings that no file has yet, by row
        self._last_save = 0.0
        self.reused = int(np.count_nonzero(self._present))

    @functools.cached_property
    def model(self) -> "keras.Model":
        """The encoder from images `[N, H, W, channels]` to `[N, d]`, loaded on first use."""
        return self.encoder.load()

    def embed_image(self, pixels: np.ndarray) -> np.ndarray:
        """Embeds any image, `[height, width, channels]`: float32 `[d]`."""
        return np.asarray(self.model.predict_on_batch(pixels[None])[0], np.float32)

    def embed_missing(self) -> None:
        """Embeds the photos that are new or changed, and stores all embeddings.

        Raises:
            EmbedError: if no photo can be read, or the encoder returns NaN or infinity.
            WorkKept: on Ctrl-C, once the finished rows are stored.
            ProtocolError: if the encoder can't be loaded (see `runs/encoders.py`).
        """
        missing = np.flatnonzero(~self._present)
        if len(missing):
            try:
                self._embed(missing)
            except KeyboardInterrupt:
                self._store()
                count = counted(int(self._present.sum()), "embedded photo")
                raise WorkKept(f"{count} stored. The same command resumes") from None
        self._store()
        if not self._present.any():
            examples = "; ".join(
                f"{name}: {reason}" for name, reason in sorted(self.skipped.items())[:5]
            )
            raise EmbedError(
                f"--images {self.images.folder}: no photo can be read. For example {examples}"
            )
        self.embeddings = self.store.load()

    def skipped_lines(self) -> list[str]:
        """Returns lines that name the first of the skipped photos; none without any."""
        if not self.skipped:
            return []
        lines = [f"unreadable, skipped ({self.store.skipped}):"]
        lines += [f"  {name}: {reason}" for name, reason in sorted(self.skipped.items())[:5]]
        more = len(self.skipped) - 5
        return [*lines, f"  and {more:,} more"] if more > 0 else lines

    def _embed(self, missing: np.ndarray) -> None:
        logger.info("computing %s of %s", self.store.array, counted(len(missing), "photo"))
        embedder = None
        start = self._last_save = time.monotonic()
        photos = self.images.read_each(self.images.photos.take(missing))
        with progress_bar("photos") as bar:
            task = bar.add_task("", total=len(missing))
            for row, (photo, pixels, reason) in zip(missing.tolist(), photos, strict=True):
                if pixels is None:
                    self.skipped[photo.name] = reason
                else:
                    if embedder is None:
                        embedder = BatchEmbedder(self.model)
                        start = time.monotonic()  # without the time to load the encoder
                    self._take(embedder.add(row, pixels))
                bar.advance(task)
            if embedder is not None:
                self._take(embedder.finish())
        seconds = time.monotonic() - start
        rate = len(missing) / max(seconds, 1e-9)
        logger.info("%s, %.1f photos/s, %.1f s", counted(len(missing), "photo"), rate, seconds)

    def _take(self, embeddings: dict[int, np.ndarray]) -> None:
        """Takes new embeddings by row, and saves where they are many or the last time is long ago.

        All that were embedded by one call are saved together (see `BatchEmbedder`).
        """
        for row, embedding in embeddings.items():
            if not np.isfinite(embedding).all():
                option, path = self.encoder.option, self.encoder.path
                name = self.images.photos[row].name
                raise EmbedError(
                    f"{option} {path}: expected finite numbers for {name}; received NaN or infinity"
                )
        self._unsaved.update(embeddings)
        if self._unsaved:
            size = len(self._unsaved) * next(iter(self._unsaved.values())).nbytes
            if size >= _PART_BYTES or time.monotonic() - self._last_save > _PART_SECONDS:
                self._save_part()

    def _save_part(self) -> None:
        rows = np.array(list(self._unsaved))
        photos = [self.images.photos[row] for row in rows.tolist()]
        self.store.write_part(photos, np.stack(list(self._unsaved.values())))
        self._present[rows], self._complete = True, False
        self._unsaved, self._last_save = {}, time.monotonic()
        count = np.count_nonzero(self._present)
        logger.info("%s of %s photos embedded", f"{count:,}", f"{len(self._present):,}")

    def _store(self) -> None:
        """Writes the files unless they have all rows."""
        if self._unsaved:
            self._save_part()
        self.photos = self.images.photos.take(np.flatnonzero(self._present))
        if not self.photos:
            return
        if self._complete:
            self.store.write_skipped(self.skipped)
        else:
            self.store.write(self.photos, self.skipped, self.facts)


def progress_bar(unit: str) -> Progress:
    """Returns a bar for a terminal, which shows nothing elsewhere."""
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit},"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(),
        transient=True,
        disable=not sys.stdout.isatty(),  # rich takes a notebook's pipe for a terminal
    )
