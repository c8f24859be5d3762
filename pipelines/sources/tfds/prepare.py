"""Prepares a TFDS data set from what is there already, a downloaded archive, or the network."""

import contextlib
import importlib.util
import io
import logging
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
import tensorflow_datasets as tfds

from pipelines.sources.base import SourceError, check_reachable
from pipelines.sources.tfds.published import PublishedDataset
from pipelines.urls import is_url

try:
    from pipelines.compat import NonMatchingChecksumError, get_dl_fname, is_locally_cached
except ImportError as error:
    raise SourceError(str(error)) from error

_TIMEOUT = 10  # seconds for a server to answer; TFDS itself retries for 200 s
_EXAMPLE = "`python -m byol_tf.train` alone needs no data: it learns from images that it draws."


@dataclass(frozen=True)
class DatasetLocation:
    """Location of a data set: prepared, or the archives or address that it is prepared from.

    Attributes:
        builder: TFDS's builder of it.
        prepared: whether it is prepared.
        archives: the archives on this disk, in a folder of TFDS's or where the user says; else
            empty.
        url: what would be downloaded, or None.
        size: of the archives in bytes, as TFDS records it.
        disk: bytes that preparing takes on the disk at most, including the download if any.
        missing: instructions to people, if something has to be downloaded by hand; else None.
    """

    builder: tfds.core.DatasetBuilder
    prepared: bool
    archives: tuple[Path, ...]
    url: str | None
    size: int
    disk: int
    missing: str | None = None


def find_dataset(
    published: PublishedDataset, root: str | None, archive: str | None
) -> DatasetLocation:
    """Finds a data set on this disk. Writes nothing and uses no network.

    Args:
        published: the data set.
        root: the folder of prepared data sets; None: TFDS's default.
        archive: the archive or, for several, their folder; None: only TFDS's own folders are
            searched.

    Raises:
        SourceError: `root` is a URL; `archive` is missing or incomplete.
    """
    if root is not None and is_url(root):
        raise SourceError(
            f"data.root: {root}: TFDS's data sets are read from this disk; data.source=shards "
            "reads the same files behind a URL, "
            f"data.root={root.rstrip('/')}/{published.name}/<version>"
        )
    data_dir = None if root is None else os.path.abspath(os.path.expanduser(root))
    with _errors_only():  # TFDS warns of a folder that isn't there yet
        builder = tfds.builder(published.name, data_dir=data_dir)
        prepared = builder.is_prepared()
        # array_record has no wheels for Windows; without it TFDS writes TFRecords, which are
        # read by index as well.
        if not prepared and importlib.util.find_spec("array_record") is not None:
            builder = tfds.builder(published.name, data_dir=data_dir, file_format="array_record")
    recorded = {
        os.path.basename(url): (url, int(info.size))
        for url, info in (builder.url_infos or {}).items()
    }
    size = sum(recorded[name][1] for name in published.archives)
    if prepared:
        return DatasetLocation(builder, True, (), None, size, 0)
    if archive is not None:
        archives = _named_archives(published, Path(archive).expanduser().absolute())
    else:
        archives = tuple(
            _downloads(builder) / "manual" / name for name in published.archives
        )  # TFDS's own folder
        missing = [path for path in archives if not path.is_file()]
        if missing and published.manual_download is not None:
            return DatasetLocation(
                builder,
                False,
                (),
                None,
                size,
                round(size * published.disk_factor),
                _manual_download_message(published, builder, missing),
            )
        archives = () if missing else archives
    for path, name in zip(archives, published.archives[: len(archives)], strict=True):
        if path.stat().st_size != recorded[name][1]:
            raise SourceError(
                f"{path} is incomplete: it has {path.stat().st_size:,} bytes, {name} has "
                f"{recorded[name][1]:,}. Download it again"
            )
    url = recorded[published.archives[0]][0]
    if archives or _is_downloaded(builder, url):
        url = None
    return DatasetLocation(
        builder,
        False,
        archives,
        url,
        size,
        round(size * (published.disk_factor + (url is not None))),
    )


def prepare(published: PublishedDataset, location: DatasetLocation) -> None:
    """Has TFDS download what is missing and prepare the data set.

    What it unpacks meanwhile is deleted again.

    Raises:
        SourceError: no network, a wrong checksum, a broken archive or one that reaches outside its
            folder, a full disk.
    """
    folder = Path(location.builder.data_dir)
    existing = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(existing).free
    if free < location.disk:
        raise SourceError(
            f"data.root: {existing} has {free / 1e9:.1f} GB free, preparing {published.name} takes "
            f"{location.disk / 1e9:.1f} GB; "
            "name a folder on another disk"
        )
    if location.url is not None:
        _check_server(published, location, location.url)
    # TFDS compares the checksums of some data sets only, and ignores suspicious members.
    for archive in location.archives:
        check_tar(archive, location.disk)
    try:
        downloads = _downloads(location.builder)
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpacked-", dir=downloads) as unpacked, _quiet():
            config = tfds.download.DownloadConfig(
                extract_dir=unpacked,
                manual_dir=_manual_dir(published, location, Path(unpacked)),
                try_download_gcs=False,
            )
            location.builder.download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        origin = location.archives[0] if location.archives else location.url
        raise SourceError(
            f"{origin} is not the file that was published: its checksum differs from TFDS's. "
            "Download it again"
        ) from error
    # TFDS, requests, tarfile and TensorFlow's file system raise what they like.
    except Exception as error:
        raise SourceError(
            f"{published.name} could not be prepared in {folder}: {type(error).__name__}: {error}"
        ) from error


def check_tar(path: Path, max_bytes: int) -> None:
    """Checks the headers of a tar archive, compressed or not; nothing is written.

    Args:
        path: of the archive.
        max_bytes: size that its files may have together.

    Raises:
        SourceError: it can't be read, has anything but files and folders, a path that leaves its
            folder, or more than `max_bytes`.
    """
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                total += member.size
                if error := _member_error(member, total, max_bytes):
                    raise SourceError(f"{path}: {error}. Download it again")
    # Errors of zlib and lzma come as one of these.
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise SourceError(
            f"{path} is no complete tar archive: {error}. Download it again"
        ) from error


def _member_error(member: tarfile.TarInfo, total: int, max_bytes: int) -> str | None:
    name = repr(member.name)[:80]
    if not (member.isreg() or member.isdir()):
        return f"{name} in it is a link or a device; expected files and folders alone"
    if os.path.isabs(member.name) or ".." in member.name.split("/"):
        return f"{name} in it lies outside the folder that it is unpacked into"
    if total > max_bytes:
        return f"expected at most {max_bytes:,} bytes in it; it unpacks to more"
    return None


def _downloads(builder: tfds.core.DatasetBuilder) -> Path:
    return Path(builder.data_dir_root) / "downloads"


def _named_archives(published: PublishedDataset, archive: Path) -> tuple[Path, ...]:
    """Returns the files that the user's `archive` names. Raises SourceError."""
    check_reachable(archive, "data.archive")
    if archive.is_file() and len(published.archives) == 1:
        return (archive,)
    folder = archive.parent if archive.is_file() else archive
    archives = tuple(folder / name for name in published.archives)
    missing = [path.name for path in archives if not path.is_file()]
    if missing:
        reason = (
            f"{folder} has no {' and no '.join(missing)}"
            if folder.is_dir()
            else f"there is no {archive}"
        )
        needed = (
            f"the file {published.archives[0]}"
            if len(archives) == 1
            else f"the folder with {' and '.join(published.archives)}"
        )
        raise SourceError(
            f"data.archive: {reason}; {needed} is needed, packed as it was downloaded"
        )
    return archives


def _is_downloaded(builder: tfds.core.DatasetBuilder, url: str) -> bool:
    """Returns whether TFDS has downloaded the archive before."""
    name = get_dl_fname(url, builder.url_infos[url].checksum)
    downloads = _downloads(builder)
    return any(
        is_locally_cached(tfds.core.Path(folder / name))
        for folder in (downloads / builder.name, downloads)
    )


def _manual_dir(
    published: PublishedDataset, location: DatasetLocation, scratch: Path
) -> Path | None:
    """Returns a folder with the archives under the names that TFDS expects."""
    if not location.archives:
        return None
    if all(
        path.name == name for path, name in zip(location.archives, published.archives, strict=True)
    ):
        return location.archives[0].parent
    folder = scratch / "manual"
    folder.mkdir()
    for path, name in zip(location.archives, published.archives, strict=True):
        (folder / name).symlink_to(path)
    return folder


def _check_server(published: PublishedDataset, location: DatasetLocation, url: str) -> None:
    """Sends one request, because TFDS would retry for minutes. Raises SourceError if it fails."""
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT) as response:
            response.raise_for_status()
    except requests.RequestException as error:
        reason = (
            f"status {error.response.status_code}"
            if error.response is not None
            else type(error).__name__
        )
        name = published.archives[0]
        raise SourceError(
            f"{published.name} is not here and can't be downloaded. It is not prepared in "
            f"{location.builder.data_dir}; {name} is not in "
            f"{_downloads(location.builder) / 'manual'}; {url} does not answer "
            f"({reason}). Download it where there is a network ({location.size / 1e9:.2f} GB) and "
            f"name the file in data.archive. {_EXAMPLE}"
        ) from error


def _manual_download_message(
    published: PublishedDataset, builder: tfds.core.DatasetBuilder, missing: list[Path]
) -> str:
    return (
        f"{published.name} is not here and has to be downloaded by hand. It is not prepared in "
        f"{builder.data_dir}; "
        f"{' and '.join(path.name for path in missing)} not found in {missing[0].parent}. "
        f"{published.manual_download} Put the files there, "
        f"or name their folder in data.archive. {_EXAMPLE}"
    )


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """Hides TFDS's warnings."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides TFDS's progress bars where there is no terminal: they would fill a log."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_errors_only())
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
            stack.callback(tfds.enable_progress_bar)
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield
