"""Opens a run's images: the same ones on every worker, and again when the run is resumed.

Files are opened by their headers, so that the first step doesn't wait until all are decoded. What
only reading them can tell comes while the run trains: see `LostPhotos` of
`pipelines/sources/folder/replacement.py` for photos that turn out to be unreadable, and
`CopiesSearch` for exact copies.
"""

import contextlib
import functools
import logging
import threading
from typing import Any

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.logs import ProgressLog
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.runs.files import check_fits_memory, write_atomically, write_csv
from byol_tf.runs.folder import RunFolder
from byol_tf.runs.sources import log_findings, source_options
from byol_tf.train.input_watchdog import InputWatchdog
from byol_tf.train.multi_worker import Workers
from pipelines.registry import SOURCES
from pipelines.sources import (
    GivenImages,
    PhotoManifest,
    Source,
    SourceError,
    TooManyUnreadable,
    open_source,
)

logger = logging.getLogger(__name__)

_DIFFERS_PER_WORKER: Any = {
    "about": True,
    "schema_": True,
    "run": True,
    "data": {"root", "archive"},
    "encoder": {"weights"},
    "objective": {"teacher"},
}
"""Keys of the config that workers needn't agree on: paths, and what only the chief reads."""


def open_images(
    config: Config,
    folder: RunFolder,
    workers: Workers,
    watchdog: InputWatchdog,
    images: GivenImages | None = None,
) -> Source:
    """Opens the images that a config names.

    A resumed run uses the photos that its folder lists, whatever has been added since.

    Args:
        config: of the run.
        folder: its run folder, which only the chief writes. Next to it the chief leaves what it
            found about the files, so that workers that see the same disk needn't look again.
        workers: of the run; each calls this.
        watchdog: observes the reading of local files.
        images: those of a config whose `data.source` is "arrays".

    Raises:
        ConfigError: if the workers have different configs.
        SourceError: if the images can't be opened, too many of a resumed run's photos are gone, or
            the workers have different images.
    """
    _check_same_config(config, workers)
    if not workers.chief:
        workers.barrier()  # the chief may have to prepare a data set that the others find then
    # A download may be slow without a sign of life; local files that don't answer for long won't.
    downloads = SOURCES[config.data.source].downloads
    with contextlib.nullcontext() if downloads else watchdog, watchdog.waiting():
        try:
            source = open_source(
                **source_options(config, images),
                on_progress=ProgressLog(logger),
                check="headers",
                on_lost=functools.partial(_log_lost, folder, workers),
                manifest=saved_manifest(folder) if workers.chief else None,
                scan_folder=str(folder.root.parent),
            )
        except TooManyUnreadable as error:
            raise _with_list(error, folder) from error
    if workers.chief:
        workers.channel.on_lost_photo = folder.list_skipped
        log_findings(source, "skipped.csv")
        if workers.count > 1:
            source.save_scan()
        workers.barrier()
    if mismatches := workers.find_mismatches(f"{source.fingerprint} {len(source.pretrain)}"):
        raise SourceError(
            f"data.source: expected the same images on each worker; worker {mismatches[0] + 1} has "
            f"others than the first (here: {len(source.pretrain):,} for pre-training)"
        )
    if mismatches := workers.find_mismatches(str(source.pretrain.blocks is None)):
        raise SourceError(
            "data.root: expected shards on a server for each worker, or for none, as both are read "
            f"in an order of their own; worker {mismatches[0] + 1} differs from the first"
        )
    return source


def save_manifest(source: Source, folder: RunFolder, resumed: bool) -> None:
    """Writes the list of the run's photos, which a resumed run is opened with.

    Args:
        source: of the run.
        folder: of the run.
        resumed: whether the run has a checkpoint: then a list that is there stays.

    Raises:
        RunFolderError: if the file can't be written.
    """
    if source.manifest is None or (resumed and folder.photos.exists()):
        return
    try:
        write_atomically(folder.photos, source.manifest.to_bytes())
    except OSError as error:
        raise RunFolderError(
            f"{folder.photos}: expected a file that can be written; received {error}"
        ) from error


def _check_same_config(config: Config, workers: Workers) -> None:
    text = config.model_dump_json(exclude=_DIFFERS_PER_WORKER)
    if mismatches := workers.find_mismatches(text):
        raise ConfigError(
            f"expected the same config on each worker; worker {mismatches[0] + 1} has another "
            "one than the first"
        )


def saved_manifest(folder: RunFolder) -> PhotoManifest | None:
    """Returns the photos of a run that has a checkpoint, or None where they aren't known."""
    if not folder.photos.exists() or not list_checkpoints(folder.checkpoints):
        return None
    try:
        check_fits_memory([folder.photos])
        return PhotoManifest.from_bytes(folder.photos.read_bytes())
    except (OSError, ValueError) as error:
        logger.warning(
            "%s: %s. Resuming with the photos that are there now, if they are the same",
            folder.photos,
            error,
        )
        return None


def _with_list(error: TooManyUnreadable, folder: RunFolder) -> SourceError:
    """Writes all files that can't be read next to the run folder; returns the error with its name.

    The folder itself isn't made: no run has begun.
    """
    table = folder.root.with_name(f"{folder.root.name}-skipped.csv")
    try:
        table.parent.mkdir(parents=True, exist_ok=True)
        write_csv(table, ("path", "reason"), error.reasons.items())
    except OSError:
        return error
    return SourceError(f"{error}. {table} lists them all")


def _log_lost(folder: RunFolder, workers: Workers, path: str, reason: str) -> None:
    logger.warning("%s can't be read: %s; another photo takes its place", path, reason)
    if workers.chief:
        folder.list_skipped(path, reason)
    else:
        workers.channel.send_lost_photo(path, reason)


class CopiesSearch:
    """Looks for exact copies among a run's photos, in a thread while the run trains.

    Files of equal size are read to compare them: all photos, where many are small.

    Args:
        source: the run's images.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._thread = threading.Thread(target=self._run, name="copies", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Waits for the end of the search, after which `Source.leaked` is known."""
        self._thread.join()

    def _run(self) -> None:
        for line in self._source.find_copies():
            logger.info("%s", line)
        self._source.save_scan()
