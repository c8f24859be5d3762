"""File format of one checkpoint, in which every damage shows; reading it runs no code.

A checkpoint is a folder with `arrays.npz`, `state.json` and `manifest.json`. The manifest has the
SHA-256 of both files as they were meant, the position, and a SHA-256 of itself: a flipped bit, a
truncated file, a missing one and one of another checkpoint are all detected.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from byol_tf.errors import RunFolderError
from byol_tf.runs.files import check_fits_memory
from pipelines.regular_files import BINARY, open_regular

FORMAT = 2
"""Version of the manifest. Version 1, without the position and a digest of itself, is still
read."""
_ARRAYS, _STATE, _MANIFEST = "arrays.npz", "state.json", "manifest.json"
_CHUNK = 1 << 24
"""Bytes that are written and synced, or read, at a time, so that progress shows on a slow disk."""
_DAMAGE = (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EINVAL)
"""Errors of a read that mean damaged files. With others, such as a missing permission or too many
open files, the checkpoint may be valid."""
_MAX_JSON_BYTES = 2**26  # an epoch's row in state.json has some 300


class DamagedCheckpoint(ValueError):
    """A checkpoint's bytes aren't those that were written; the text says which."""


def write_files(
    folder: Path,
    epoch: int,
    step: int,
    arrays: Mapping[str, np.ndarray],
    state: dict[str, Any],
    on_progress: Callable[[], object] = lambda: None,
) -> None:
    """Writes and syncs a checkpoint's files.

    The digests are of the bytes that were to be written, not of those that the disk returns:
    `verify` compares the two.

    Args:
        folder: an empty folder.
        epoch: completed epochs.
        step: completed steps of the epoch after them.
        arrays: name -> variable.
        state: JSON types.
        on_progress: called each time that bytes have been written or synced.

    Raises:
        OSError: if a file can't be written.
    """
    manifest: dict[str, Any] = {"format": FORMAT, "epoch": epoch, "step": step}
    with _HashedFile(folder / _ARRAYS, on_progress) as file:
        _write_arrays(file, arrays)
        manifest[_ARRAYS] = file.finish()
    with _HashedFile(folder / _STATE, on_progress) as file:
        file.write(json.dumps(state).encode())
        manifest[_STATE] = file.finish()
    with _HashedFile(folder / _MANIFEST, on_progress) as file:
        file.write(_with_own_digest(manifest))
        file.finish()
    sync(folder)


def verify(
    folder: Path, epoch: int, step: int, on_progress: Callable[[], object] = lambda: None
) -> None:
    """Reads a checkpoint completely and compares it with its manifest.

    Args:
        folder: of its files.
        epoch: completed epochs that it should have.
        step: completed steps of the next epoch that it should have.
        on_progress: called each time that bytes have been read.

    Raises:
        DamagedCheckpoint: if the bytes aren't those that were written, or are those of another
            position.
        RunFolderError: if another version of byol_tf wrote it.
        OSError: if it can't be read although it may be valid.
    """
    with _open_verified(folder, epoch, step, on_progress=on_progress):
        pass


def read_files(folder: Path, epoch: int, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a checkpoint; the bytes that it returns are the ones that it verified.

    Args:
        folder: of its files.
        epoch: see `verify`.
        step: see `verify`.

    Returns:
        (arrays, state) as they were given to `write_files`.

    Raises:
        DamagedCheckpoint: as `verify`; or if no run writes such content.
        RunFolderError: as `verify`.
        OSError: as `verify`; or if the arrays are larger than the free memory.
    """
    with _open_verified(folder, epoch, step, in_memory=True) as (file, state):
        try:
            with np.load(file, allow_pickle=False) as archive:
                _check_not_packed(archive, os.fstat(file.fileno()).st_size)
                arrays = {name.replace("|", "/"): archive[name] for name in archive.files}
            return arrays, json.loads(state)
        # A disk that returns other bytes the second time: zip has checksums too. Or content that
        # no run writes: pickled objects, deep nesting, an array larger than the file.
        except (zipfile.BadZipFile, EOFError, ValueError, RecursionError, MemoryError) as error:
            raise DamagedCheckpoint(f"{_ARRAYS}: {error}") from error


def _check_not_packed(archive: Any, size: int) -> None:
    """Raises `ValueError` if the arrays of a zip are larger than the file: 3 MB could hold 3 GB."""
    unpacked = sum(member.file_size for member in archive.zip.infolist())
    if unpacked > size:
        raise ValueError(f"it unpacks to {unpacked:,} bytes; a run doesn't compress its {size:,}")


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if os.name == "nt":  # Windows syncs no folder
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_arrays(file: io.RawIOBase, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the bytes of `np.savez`.

    That function copies each array once more, and in older NumPys leaves its archive open when a
    write fails.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Of a Fortran-ordered array the header would state that order.
            array = np.asarray(array, order="C")
            with archive.open(f"{name.replace('/', '|')}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(
                    entry, np.lib.format.header_data_from_array_1_0(array)
                )
                entry.write(array.reshape(-1).view(np.uint8).data)


class _HashedFile(io.RawIOBase):
    """A new file that is written front to back and hashed as it is written.

    It is synced every 16 MiB: with one sync at the end, a slow disk would show no progress for
    minutes.
    """

    _descriptor = -1  # of a file that couldn't be opened, which is closed too when collected

    def __init__(self, path: Path, on_progress: Callable[[], object]):
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
        self._digest, self._on_progress, self._unsynced = hashlib.sha256(), on_progress, 0

    def writable(self) -> bool:
        """Returns True, which `zipfile` asks for."""
        return True

    def write(self, data: Any) -> int:
        """Writes all of `data`; returns its length in bytes.

        On a disk that fills up the system takes a part at first, and fails only the next call.
        """
        remaining = memoryview(data).cast("B")
        self._digest.update(remaining)
        total = len(remaining)
        while remaining:
            written = os.write(self._descriptor, remaining[:_CHUNK])
            remaining = remaining[written:]
            self._unsynced += written
            if self._unsynced >= _CHUNK:
                os.fsync(self._descriptor)
                self._unsynced = 0
            self._on_progress()
        return total

    def finish(self) -> str:
        """Syncs the file; returns the SHA-256 of all that was written, in hexadecimal."""
        os.fsync(self._descriptor)
        self._on_progress()
        if hasattr(os, "posix_fadvise"):
            # Dropped from the page cache, so that reading it back reads the disk.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return self._digest.hexdigest()

    def close(self) -> None:
        """Closes the file; called again, it does nothing."""
        if not self.closed:
            super().close()
            # Forgotten before it is closed: its number may soon be another file's.
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                os.close(descriptor)


@contextlib.contextmanager
def _open_verified(
    folder: Path,
    epoch: int,
    step: int,
    in_memory: bool = False,
    on_progress: Callable[[], object] = lambda: None,
) -> Iterator[tuple[BinaryIO, bytes]]:
    """Yields (arrays.npz, opened; content of state.json) of a checkpoint that it has verified.

    The file stays open from its verification to its use, so that renaming or replacing it
    meanwhile changes nothing. `in_memory` tells whether the arrays are going to be read.
    """
    try:
        if in_memory:
            check_fits_memory([folder / _ARRAYS])
        manifest = _parse_manifest(_read(folder / _MANIFEST))
        state = _read(folder / _STATE)
        with open_regular(folder / _ARRAYS) as file:
            digests = {
                _ARRAYS: _file_digest(file, on_progress),
                _STATE: hashlib.sha256(state).hexdigest(),
            }
            for name, digest in digests.items():
                if manifest.get(name) != digest:
                    raise DamagedCheckpoint(f"{name} is not what was written")
            written_at = manifest.get("epoch", epoch), manifest.get("step", step)
            if written_at != (epoch, step):
                raise DamagedCheckpoint(
                    f"expected the files of (epoch, step) {(epoch, step)}; received those of "
                    f"{written_at}"
                )
            file.seek(0)
            yield file, state
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        name = Path(error.filename).name if error.filename else folder.name
        raise DamagedCheckpoint(f"{name}: {error.strerror}") from error


def _read(path: Path) -> bytes:
    """Reads a JSON file, but not one that is larger than any that a run writes."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > _MAX_JSON_BYTES:
            raise DamagedCheckpoint(f"{path.name} has more than {_MAX_JSON_BYTES:,} bytes")
        return file.read()


def _file_digest(file: BinaryIO, on_progress: Callable[[], object]) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
        on_progress()
    return digest.hexdigest()


def _parse_manifest(content: bytes) -> dict[str, Any]:
    """Returns the content of a manifest; raises if it is damaged or of another version."""
    try:
        manifest = json.loads(content)
        if isinstance(manifest, dict) and manifest.keys() == {_ARRAYS, _STATE}:
            return manifest  # format 1
        valid = isinstance(manifest, dict) and content == _with_own_digest(
            {key: value for key, value in manifest.items() if key != _MANIFEST}
        )
    # UnicodeDecodeError is a ValueError. No run writes deep nesting.
    except (ValueError, RecursionError):
        valid = False
    if not valid:
        raise DamagedCheckpoint(f"{_MANIFEST} is not what was written")
    if manifest.get("format") != FORMAT:  # undamaged, or its digest would differ
        raise RunFolderError(
            f"expected a checkpoint of format 1 or {FORMAT}; received format "
            f"{manifest.get('format')}. Use the version of byol_tf that "
            "environment.json names, or --fresh"
        )
    return manifest


def _with_own_digest(manifest: dict[str, Any]) -> bytes:
    """Returns the bytes of a manifest: its content and the SHA-256 of that."""
    text = json.dumps(manifest)
    return json.dumps(manifest | {_MANIFEST: hashlib.sha256(text.encode()).hexdigest()}).encode()
