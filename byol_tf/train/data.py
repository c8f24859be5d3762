"""A run's images: opened when it begins and when it goes on, the same ones on all machines and at
all times."""

import contextlib
from collections.abc import Callable

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.runs.data import source_options
from byol_tf.runs.files import write_atomically
from byol_tf.runs.folder import RunFolder
from byol_tf.train.input_watchdog import StuckInput
from byol_tf.train.multi_worker import Workers
from pipelines.registry import SOURCES
from pipelines.sources import PhotoManifest, Source, SourceError, open_source


def open_images(
    config: Config,
    folder: RunFolder | None,
    workers: Workers,
    stuck: StuckInput,
    say: Callable[[str], None],
) -> Source:
    """Opens the images that the config names; those of a run that has begun, where its folder lists
    them.

    Args:
        config: of the run.
        folder: its run folder; None where this process isn't the chief.
        workers: the processes of the run.
        stuck: watches while local files are read.
        say: prints a line for people.

    Raises:
        ConfigError: if the machines have different configs.
        SourceError: if the images can't be had, too many of those that the run began with are gone,
            or the machines have different ones.
    """
    # What a path is on one machine it needn't be on another; all else has to be the same.
    text = config.model_dump_json(
        exclude={
            "about": True,
            "schema_": True,
            "run": True,
            "data": {"root", "archive"},
            "encoder": {"weights"},
        }
    )
    if differing := workers.differing(text):
        raise ConfigError(
            [
                f"another config on machine {differing[0] + 1} of TF_CONFIG than on the first; "
                "expected the same on each"
            ]
        )
    if not workers.chief:
        # the chief may have to prepare a data set in a folder where the others find it then
        workers.wait()

    def progress(what: str, done: int, total: int) -> None:
        if done == total:
            say(f"{what}: {total:,} images")

    def lost(path: str, reason: str) -> None:
        say(f"lost: {path}: {reason}; another photo takes its place")
        if folder is not None:
            folder.list_skipped(path, reason)

    # A download may be slow without a sign of life; local files that don't answer for so long
    # won't.
    downloads = SOURCES[config.data.source].downloads
    with contextlib.nullcontext() if downloads else stuck, stuck.waiting():
        scans = None if folder is None else str(folder.root.parent)
        source = open_source(
            **source_options(config),
            on_progress=progress,
            on_lost=lost,
            manifest=_manifest(folder, say),
            scan_folder=scans,
        )
    if workers.chief:
        workers.wait()
    if differing := workers.differing(f"{source.fingerprint} {len(source.pretrain)}"):
        raise SourceError(
            f"data.source: expected the same images on each machine; machine {differing[0] + 1} of "
            "TF_CONFIG holds others than the "
            f"first (here: {len(source.pretrain):,} to learn from)"
        )
    return source


def save_manifest(source: Source, folder: RunFolder, begun: bool) -> None:
    """Writes down which photos a run is about, for whoever goes on with it; one that has begun
    keeps what it has.

    Raises `RunFolderError` if the file can't be written.
    """
    if source.manifest is None or (begun and folder.photos.exists()):
        return
    try:
        write_atomically(folder.photos, source.manifest.to_bytes())
    except OSError as error:
        raise RunFolderError(
            f"{folder.photos}: expected a file that can be written; received {error}"
        ) from error


def _manifest(folder: RunFolder | None, say: Callable[[str], None]) -> PhotoManifest | None:
    """The photos of a run that has begun; None where none has, or where nobody wrote them down."""
    if folder is None or not folder.photos.exists() or not list_checkpoints(folder.checkpoints):
        return None
    try:
        return PhotoManifest.from_bytes(folder.photos.read_bytes())
    except (OSError, ValueError) as error:
        say(
            f"warning: {folder.photos}: {error}. Going on with the photos that are there now, if "
            "they are the same"
        )
        return None
