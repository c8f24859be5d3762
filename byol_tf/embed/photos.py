"""Photos of all sizes through an encoder, in batches of one size and in bounded memory."""

import argparse
import functools
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from byol_tf.embed.store import Store
from byol_tf.errors import EmbedError, ProtocolError, WorkKept
from byol_tf.logs import counted
from byol_tf.runs.encoder_files import EncoderFiles
from pipelines.sources import FlatImageFolder, Photo

if TYPE_CHECKING:
    import keras

_BATCH_SIZE = 250
_BATCH_BYTES = 2**25  # of uint8 pixels: the encoder converts them to floats, four times as large
_PENDING_BYTES = 2**27  # of photos of all sizes that wait for others of their size
_PART_SECONDS = 300.0  # lest a power cut cost an afternoon
_PART_BYTES = 2**28  # of new rows: writing a part copies them
_MOVE_BYTES = 2**22  # of rows that are moved at once

logger = logging.getLogger(__name__)


class BatchEmbedder:
    """Collects photos, and embeds those of one size together.

    Args:
        model: from images `[N, H, W, channels]` of any size to `[N, d]`, in inference mode.
        on_embedded: called with (key, embedding float32 `[d]`) of each photo, in no order.
    """

    def __init__(self, model: "keras.Model", on_embedded: Callable[[int, np.ndarray], None]):
        self.model, self.on_embedded = model, on_embedded
        self._pending: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._bytes = 0

    def add(self, key: int, pixels: np.ndarray) -> None:
        """Takes a photo, `[height, width, channels]`."""
        group = self._pending[pixels.shape]
        group.append((key, pixels))
        self._bytes += pixels.nbytes
        if len(group) == _BATCH_SIZE or len(group) * pixels.nbytes >= _BATCH_BYTES:
            self._embed(pixels.shape)
        elif self._bytes >= _PENDING_BYTES:
            self.finish()

    def finish(self) -> None:
        """Embeds the photos that wait for others."""
        for shape in list(self._pending):
            self._embed(shape)

    def _embed(self, shape: tuple[int, ...]) -> None:
        keys, photos = zip(*self._pending.pop(shape), strict=True)
        self._bytes -= sum(pixels.nbytes for pixels in photos)
        embeddings = self.model.predict_on_batch(np.stack(photos))
        for key, embedding in zip(keys, embeddings, strict=True):
            self.on_embedded(key, np.asarray(embedding, np.float32))


def add_photo_arguments(parser: argparse.ArgumentParser, outputs: str, model: str) -> None:
    """Adds `--images` and `--out` to the parser of a command that runs a model on a folder.

    Args:
        parser: of the command.
        outputs: the folder below which `default_folder` has the command's outputs.
        model: of whose files the name of the output folder has a digest.
    """
    parser.add_argument(
        "--images",
        metavar="DIR",
        type=os.path.expanduser,
        required=True,
        help="the folder of photos, flat or nested",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=os.path.expanduser,
        help=f"the output folder (default: {outputs}/<folder>-<digest of {model} and folder>)",
    )


class EmbeddedPhotos:
    """Photos and their embeddings. Memory: the embeddings, once.

    Args:
        images: the folder of photos.
        encoder: the encoder's files.
        store: keeps the embeddings.
        facts: for the store's `about.json`.
        option: that named the encoder, for messages.

    Attributes:
        photos: those with an embedding, ascending by path; from `embed_missing` on.
        embeddings: float32 `[n, d]`, a row per photo; from `embed_missing` on.
        skipped: from name to reason, of the other photos.
        reused: number of embeddings that were stored before.
    """

    embeddings: np.ndarray

    def __init__(
        self,
        images: FlatImageFolder,
        encoder: EncoderFiles,
        store: Store,
        facts: dict,
        option: str = "--encoder",
    ):
        self.images, self.encoder, self.store, self.facts = images, encoder, store, facts
        self.option = option
        self.photos: list[Photo] = []
        self.skipped = dict(images.skipped)
        stored = store.read(images.photos)
        self._rows, self._present, self._complete = stored.rows, stored.present, stored.complete
        self._unsaved: list[int] = []  # rows that no file has yet
        self._last_save = 0.0
        self.reused = int(np.count_nonzero(self._present))

    @functools.cached_property
    def model(self) -> "keras.Model":
        """The encoder from images `[N, H, W, channels]` to `[N, d]`, loaded on first use."""
        try:
            return self.encoder.load()
        except ProtocolError as error:
            if self.encoder.is_run:
                raise
            text = str(error).removeprefix("--encoder")
            raise ProtocolError(f"{self.option}{text}") from error

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
                count = counted(len(self.photos), "embedded photo")
                raise WorkKept(f"{count} stored. The same command resumes") from None
        if not self._present.any():
            examples = "; ".join(
                f"{name}: {reason}" for name, reason in sorted(self.skipped.items())[:5]
            )
            raise EmbedError(
                f"--images {self.images.folder}: no photo can be read. For example {examples}"
            )
        self._store()

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
        photos = self.images.read_each([self.images.photos[row] for row in missing])
        with _progress_bar() as bar:
            task = bar.add_task("", total=len(missing))
            for row, (photo, pixels, reason) in zip(missing, photos, strict=True):
                if pixels is None:
                    self.skipped[photo.name] = reason
                else:
                    if embedder is None:
                        embedder = BatchEmbedder(self.model, self._put)
                        start = time.monotonic()  # without the time to load the encoder
                    embedder.add(row, pixels)
                bar.advance(task)
                self._save_part()
            if embedder is not None:
                embedder.finish()
        seconds = time.monotonic() - start
        rate = len(missing) / max(seconds, 1e-9)
        logger.info("%s, %.1f photos/s, %.1f s", counted(len(missing), "photo"), rate, seconds)

    def _put(self, row: int, embedding: np.ndarray) -> None:
        if not np.isfinite(embedding).all():
            name = self.images.photos[row].name
            raise EmbedError(
                f"{self.option} {self.encoder.path}: expected finite numbers for {name}; received "
                "NaN or infinity"
            )
        if self._rows is None:
            self._rows = np.empty((len(self._present), len(embedding)), np.float32)
        self._rows[row], self._present[row] = embedding, True
        self._unsaved.append(row)
        self._complete = False

    def _save_part(self) -> None:
        """Saves the new rows where they are many, or the last part is long ago."""
        if self._rows is None or not self._unsaved:
            return
        if (
            time.monotonic() - self._last_save > _PART_SECONDS
            or len(self._unsaved) * self._rows[0].nbytes > _PART_BYTES
        ):
            photos = [self.images.photos[row] for row in self._unsaved]
            self.store.write_part(photos, self._rows[self._unsaved])
            count = np.count_nonzero(self._present)
            logger.info("%s of %s photos embedded", f"{count:,}", f"{len(self._present):,}")
            self._unsaved, self._last_save = [], time.monotonic()

    def _store(self) -> None:
        """Closes the gaps between rows, and writes the files unless they have all rows."""
        present = np.flatnonzero(self._present)
        self.photos = [self.images.photos[row] for row in present]
        if self._rows is None or not len(present):
            return
        if len(present) < len(self._present):
            block_rows = max(1, _MOVE_BYTES // self._rows[0].nbytes)
            # In place: rows only move up, so that none is overwritten before it has moved.
            for start in range(0, len(present), block_rows):
                block = present[start : start + block_rows]
                self._rows[start : start + len(block)] = self._rows[block]
        self.embeddings = self._rows[: len(present)]
        if not self._complete:
            self.store.write(self.photos, self.embeddings, self.skipped, self.facts)
        elif len(present) < len(self._present):
            self.store.write_skipped(self.skipped)


def _progress_bar() -> Progress:
    """A bar in a terminal, and nothing elsewhere."""
    console = Console()
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
