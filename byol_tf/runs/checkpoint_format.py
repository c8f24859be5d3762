"""The files of one checkpoint: written so that each damage shows, and read so that each is found.
Needs no TensorFlow and loads no code.

A checkpoint's folder holds `arrays.npz`, `state.json` and `manifest.json`. The manifest has SHA-256
of both files as they were meant, the position, and SHA-256 of itself: a flipped bit, a cut, a
missing file and one of another checkpoint all show.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from byol_tf.errors import RunFolderError

FORMAT = 2
"""Of the manifest. Format 1 had neither the position nor a digest of itself; it is still read."""
_ARRAYS, _STATE, _MANIFEST = "arrays.npz", "state.json", "manifest.json"
_DAMAGE = (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Failures of a read that the files are to blame for. For others (no right to read, too many open
files) the checkpoint may be whole."""


class DamagedCheckpoint(ValueError):
    """The bytes of a checkpoint aren't those that were written; the text says which."""


def write_files(
    folder: Path, epoch: int, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]
) -> None:
    """Writes a checkpoint's files into an empty folder and syncs them; `OSError` if that fails.

    What is hashed is what was to be written, not what the disk says it has: `verify` compares the
    two.
    """
    facts = {"format": FORMAT, "epoch": epoch, "step": step}
    with _HashedFile(folder / _ARRAYS) as file:
        _write_arrays(file, arrays)
        facts[_ARRAYS] = file.finish()
    with _HashedFile(folder / _STATE) as file:
        file.write(json.dumps(state).encode())
        facts[_STATE] = file.finish()
    with _HashedFile(folder / _MANIFEST) as file:
        file.write(_sealed(facts))
        file.finish()
    sync(folder)


def verify(folder: Path, epoch: int, step: int) -> None:
    """Reads all bytes of a checkpoint.

    Args:
        folder: of its files.
        epoch, step: the position that it should have.

    Raises:
        DamagedCheckpoint: if they aren't those that were written, or at that position.
        RunFolderError: if another version of byol_tf wrote it.
        OSError: if they can't be read, for a reason that isn't theirs.
    """
    with _checked(folder, epoch, step):
        pass


def read_files(folder: Path, epoch: int, step: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """(arrays, state) of a checkpoint; raises what `verify` does. The bytes that it gives are the
    bytes that were checked."""
    with _checked(folder, epoch, step) as (file, state):
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name.replace("|", "/"): arrays[name] for name in arrays.files}, json.loads(
                    state
                )
        # A disk that gives other bytes the second time: the zip has checksums too. Or what no run
        # writes: pickled objects, deep nesting.
        except (zipfile.BadZipFile, EOFError, ValueError, RecursionError) as error:
            raise DamagedCheckpoint(f"{_ARRAYS}: {error}") from error


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """The bytes of `np.savez`, which copies each array once more, and in older NumPys leaves its
    archive open when a write fails."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            # Its header would say Fortran's order of one that lies so.
            array = np.asarray(array, order="C")
            with archive.open(f"{name.replace('/', '|')}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array_header_1_0(
                    entry, np.lib.format.header_data_from_array_1_0(array)
                )
                entry.write(array.reshape(-1).view(np.uint8))


class _HashedFile(io.RawIOBase):
    """A new file that is written from its beginning to its end, and hashed on the way."""

    _descriptor = -1  # of one that couldn't be opened, which is closed too when it is collected

    def __init__(self, path: Path):
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        """All of it: on a disk that fills up the system takes a part at first, and says so only
        when asked again."""
        left = memoryview(data).cast("B")
        self._digest.update(left)
        total = len(left)
        while left:
            left = left[os.write(self._descriptor, left) :]
        return total

    def finish(self) -> str:
        """Syncs it; returns SHA-256 of all that was written, in hexadecimal."""
        os.fsync(self._descriptor)
        if hasattr(
            os, "posix_fadvise"
        ):  # forgotten in memory, so that who reads it back reads the disk
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return self._digest.hexdigest()

    def close(self) -> None:
        if not self.closed:
            super().close()
            descriptor, self._descriptor = (
                self._descriptor,
                -1,
            )  # its number may soon be another file's
            if descriptor >= 0:
                os.close(descriptor)


@contextlib.contextmanager
def _checked(folder: Path, epoch: int, step: int) -> Iterator[tuple[BinaryIO, bytes]]:
    """(arrays.npz, opened; content of state.json), of a checkpoint that is whole.

    The file stays open from the check to its use: what happens to the name meanwhile changes
    nothing.
    """
    try:
        facts = _facts((folder / _MANIFEST).read_bytes())
        state = (folder / _STATE).read_bytes()
        with (folder / _ARRAYS).open("rb") as file:
            digests = {
                _ARRAYS: hashlib.file_digest(file, "sha256").hexdigest(),
                _STATE: hashlib.sha256(state).hexdigest(),
            }
            for name, digest in digests.items():
                if facts.get(name) != digest:
                    raise DamagedCheckpoint(f"{name} is not what was written")
            if (written_at := (facts.get("epoch", epoch), facts.get("step", step))) != (
                epoch,
                step,
            ):
                raise DamagedCheckpoint(
                    f"expected the files of (epoch, step) {(epoch, step)}; received those of "
                    f"{written_at}"
                )
            file.seek(0)
            yield file, state
    except OSError as error:
        if error.errno not in _DAMAGE:
            raise
        raise DamagedCheckpoint(
            f"{Path(error.filename).name if error.filename else folder.name}: {error.strerror}"
        ) from error


def _facts(manifest: bytes) -> dict[str, Any]:
    """What a manifest says, if it is whole."""
    try:
        facts = json.loads(manifest)
        if isinstance(facts, dict) and facts.keys() == {_ARRAYS, _STATE}:
            return facts  # format 1
        whole = isinstance(facts, dict) and manifest == _sealed(
            {name: fact for name, fact in facts.items() if name != _MANIFEST}
        )
    except (
        ValueError,
        RecursionError,
    ):  # UnicodeDecodeError is a ValueError; deep nesting is what no run writes
        whole = False
    if not whole:
        raise DamagedCheckpoint(f"{_MANIFEST} is not what was written")
    if facts.get("format") != FORMAT:  # whole, so it is no damage
        raise RunFolderError(
            f"expected a checkpoint of format 1 or {FORMAT}; received format "
            f"{facts.get('format')}. Use the version of byol_tf that "
            "environment.json names, or --fresh"
        )
    return facts


def _sealed(facts: dict[str, Any]) -> bytes:
    """The bytes of a manifest: the facts and SHA-256 of them."""
    text = json.dumps(facts)
    return json.dumps(facts | {_MANIFEST: hashlib.sha256(text.encode()).hexdigest()}).encode()
