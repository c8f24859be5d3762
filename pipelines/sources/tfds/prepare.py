"""A TFDS data set, prepared: from what lies here already, from an archive downloaded by hand, or
from the network."""

import contextlib
import importlib.util
import io
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from absl import logging

from pipelines.sources.base import SourceError
from pipelines.sources.images import Shape


def check_tar(path: Path, most: int) -> None:
    """Reads the headers of a tar archive, packed or not; a packed one has to be unpacked for that,
    into nothing.

    Args:
        path: of the archive.
        most: bytes that its files may have together.

    Raises:
        SourceError: it can't be read, holds anything but files and folders, a path that climbs out,
            or more than `most` bytes.
    """
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = repr(member.name)[:80]
                if not (member.isreg() or member.isdir()):
                    raise SourceError(
                        f"{path}: {name} in it is a link or a device; expected files and folders "
                        "alone. Download it again"
                    )
                if os.path.isabs(member.name) or ".." in member.name.split("/"):
                    raise SourceError(
                        f"{path}: {name} in it lies outside the folder that it is unpacked into. "
                        "Download it again"
                    )
                total += member.size
                if total > most:
                    raise SourceError(
                        f"{path}: expected at most {most:,} bytes in it; it unpacks to more. "
                        "Download it again"
                    )
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        ValueError,
    ) as error:  # zlib's and lzma's errors come as one of these
        raise SourceError(f"{path} is no whole tar archive: {error}. Download it again") from error


try:  # the line above succeeds whatever fails inside, and leaves a package that is empty
    from tensorflow_datasets.core.download import resource
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
except Exception as error:  # protobuf has errors of its own for messages that are newer than itself
    raise SourceError(
        f"tensorflow-datasets can't be imported here: {error}. Beside TensorFlow 2.19: pip install "
        "'tensorflow-metadata<1.18'"
    ) from error

_TIMEOUT = 10  # seconds that a server may take to answer; TFDS itself tries for 200 s
_EXAMPLE = "`python -m byol_tf.train` alone needs no data: it learns from images that it draws."


@dataclass(frozen=True)
class Published:
    """What is known of a data set without having it.

    Attributes:
        name: as TFDS calls it.
        splits: our names of its splits -> TFDS's.
        counts: images in each of our splits.
        classes: number of classes.
        shape: of every image, or None.
        archives: the files that it comes as.
        by_hand: where people get them, if TFDS can't download them; else None.
        disk: how many times the archives' size preparing takes on the disk, beside the archives
            themselves.
    """

    name: str
    splits: Mapping[str, str]
    counts: Mapping[str, int]
    classes: int
    shape: Shape | None
    archives: tuple[str, ...]
    by_hand: str | None
    disk: float


@dataclass(frozen=True)
class DatasetLocation:
    """Where a data set is to come from.

    Attributes:
        builder: TFDS's.
        prepared: nothing is left to do.
        archives: the archives that lie here, in a folder of TFDS's or where the user said; else
            empty.
        url: what would be downloaded, or None.
        size: of the archives in bytes, as TFDS recorded it.
        disk: bytes that preparing takes on the disk at most, with a download where there is one.
        missing: what people must do before it can be prepared, or None.
    """

    builder: tfds.core.DatasetBuilder
    prepared: bool
    archives: tuple[Path, ...]
    url: str | None
    size: int
    disk: int
    missing: str | None = None


def find(published: Published, root: str | None, archive: str | None) -> DatasetLocation:
    """Looks for a data set. Writes nothing and uses no network.

    Args:
        published: which one.
        root: where prepared data sets lie; None: TFDS's own place.
        archive: the archive or, for several, their folder; None: only TFDS's own folders are looked
            in.

    Raises:
        SourceError: `archive` is missing or not whole.
    """
    data_dir = None if root is None else os.path.abspath(os.path.expanduser(root))
    with _errors_only():  # TFDS warns of a folder that isn't there yet
        builder = tfds.builder(published.name, data_dir=data_dir)
        prepared = builder.is_prepared()
        # Its wheels exist for Linux only; where it is missing TFDS writes TFRecords, which are read
        # by index as well.
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
        )  # where TFDS itself looks
        missing = [path for path in archives if not path.is_file()]
        if missing and published.by_hand is not None:
            return DatasetLocation(
                builder,
                False,
                (),
                None,
                size,
                round(size * published.disk),
                _missing_by_hand(published, builder, missing),
            )
        archives = () if missing else archives
    for path, name in zip(archives, published.archives[: len(archives)], strict=True):
        if path.stat().st_size != recorded[name][1]:
            raise SourceError(
                f"{path} is not whole: it has {path.stat().st_size:,} bytes, {name} has "
                f"{recorded[name][1]:,}. Download it again"
            )
    url = recorded[published.archives[0]][0]
    if archives or _is_downloaded(builder, url):
        url = None
    return DatasetLocation(
        builder, False, archives, url, size, round(size * (published.disk + (url is not None)))
    )


def prepare(published: Published, found: DatasetLocation) -> None:
    """Has TFDS download what is missing and prepare the data set; what it unpacks on the way is
    deleted again.

    Raises:
        SourceError: no network, a wrong checksum, a broken archive or one that reaches outside its
            folder, a full disk.
    """
    folder = Path(found.builder.data_dir)
    home = next(path for path in folder.parents if path.exists())
    free = shutil.disk_usage(home).free
    if free < found.disk:
        raise SourceError(
            f"data.root: {home} has {free / 1e9:.1f} GB free, preparing {published.name} takes "
            f"{found.disk / 1e9:.1f} GB; "
            "name a folder on another disk"
        )
    if found.url is not None:
        _reach(published, found)
    for archive in (
        found.archives
    ):  # TFDS compares checksums of some data sets only, and passes over odd members without a word
        check_tar(archive, found.disk)
    try:
        downloads = _downloads(found.builder)
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unpacked-", dir=downloads) as unpacked, _quiet():
            config = tfds.download.DownloadConfig(
                extract_dir=unpacked,
                manual_dir=_manual_dir(published, found, Path(unpacked)),
                try_download_gcs=False,
            )
            found.builder.download_and_prepare(download_config=config)
    except NonMatchingChecksumError as error:
        where = found.archives[0] if found.archives else found.url
        raise SourceError(
            f"{where} is not the file that was published: its checksum differs from TFDS's. "
            "Download it again"
        ) from error
    except (
        Exception
    ) as error:  # of TFDS, requests, tarfile, TensorFlow's file system: all end the preparation
        raise SourceError(
            f"{published.name} could not be prepared in {folder}: {type(error).__name__}: {error}"
        ) from error


def _downloads(builder: tfds.core.DatasetBuilder) -> Path:
    return Path(builder.data_dir_root) / "downloads"


def _named_archives(published: Published, archive: Path) -> tuple[Path, ...]:
    """What the user's `archive` means. Raises SourceError."""
    if archive.is_file() and len(published.archives) == 1:
        return (archive,)
    folder = archive.parent if archive.is_file() else archive
    archives = tuple(folder / name for name in published.archives)
    missing = [path.name for path in archives if not path.is_file()]
    if missing:
        where = (
            f"{folder} has no {' and no '.join(missing)}"
            if folder.is_dir()
            else f"there is no {archive}"
        )
        what = (
            f"the file {published.archives[0]}"
            if len(archives) == 1
            else f"the folder with {' and '.join(published.archives)}"
        )
        raise SourceError(f"data.archive: {where}; {what} is needed, packed as it was downloaded")
    return archives


def _is_downloaded(builder: tfds.core.DatasetBuilder, url: str) -> bool:
    """Whether an earlier run of TFDS left the archive, in the place and under the name that TFDS
    gives it."""
    name = resource.get_dl_fname(url, builder.url_infos[url].checksum)
    downloads = _downloads(builder)
    return any(
        resource.is_locally_cached(tfds.core.Path(folder / name))
        for folder in (downloads / builder.name, downloads)
    )


def _manual_dir(published: Published, found: DatasetLocation, scratch: Path) -> Path | None:
    """The folder in which TFDS finds the archives under the names that it knows."""
    if not found.archives:
        return None
    if all(
        path.name == name for path, name in zip(found.archives, published.archives, strict=True)
    ):
        return found.archives[0].parent
    folder = scratch / "manual"
    folder.mkdir()
    for path, name in zip(found.archives, published.archives, strict=True):
        (folder / name).symlink_to(path)
    return folder


def _reach(published: Published, found: DatasetLocation) -> None:
    """Asks the server once, because TFDS would try for minutes. Raises SourceError where it doesn't
    answer."""
    try:
        with requests.get(found.url, stream=True, timeout=_TIMEOUT) as answer:
            answer.raise_for_status()
    except requests.RequestException as error:
        reason = (
            f"status {error.response.status_code}"
            if error.response is not None
            else type(error).__name__
        )
        name = published.archives[0]
        raise SourceError(
            f"{published.name} is not here and can't be downloaded. It is not prepared in "
            f"{found.builder.data_dir}; {name} is not in "
            f"{_downloads(found.builder) / 'manual'}; {found.url} does not answer ({reason}). "
            "Download it where there is a network "
            f"({found.size / 1e9:.2f} GB) and name the file in data.archive. {_EXAMPLE}"
        ) from error


def _missing_by_hand(
    published: Published, builder: tfds.core.DatasetBuilder, missing: list[Path]
) -> str:
    return (
        f"{published.name} is not here and has to be downloaded by hand. It is not prepared in "
        f"{builder.data_dir}; "
        f"{' and '.join(path.name for path in missing)} not found in {missing[0].parent}. "
        f"{published.by_hand} Put the files there, "
        f"or name their folder in data.archive. {_EXAMPLE}"
    )


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TFDS's progress bars are for a terminal; elsewhere they fill a log."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_errors_only())
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
            stack.callback(tfds.enable_progress_bar)
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        yield
