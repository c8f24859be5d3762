"""Files that keep the embeddings of a folder's photos, so that no photo is embedded twice.

```
OUT/
  embeddings.npz   `embeddings`, float32 [n, d]
  index.csv        row, path, bytes, modified: the photo of each row
  skipped.csv      path, reason: photos that couldn't be read
  about.json       encoder, folder of photos, command
  parts/           until all photos are embedded: 0001.npz, ..., each with the latest rows
```
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from byol_tf.errors import EmbedError, RunFolderError
from byol_tf.runs.files import (
    atomic_file,
    csv_text,
    name_of_cell,
    read_json_object,
    remove_left_overs,
    why_no_folder,
    write_atomically,
    write_csv,
)
from byol_tf.runs.folder import LOCK_NAME
from byol_tf.runs.lock import RunLock
from pipelines.sources import Photo

_READ_BYTES = 2**22
"""Of embeddings that are read at once."""
_INVALID_FILE = (OSError, ValueError, KeyError, TypeError, csv.Error, zipfile.BadZipFile, EOFError)

PhotoKey = tuple[str, int, int]
"""Name, bytes and modification time, by which an unchanged photo is recognised."""


@dataclass(frozen=True)
class StoredEmbeddings:
    """The rows of some photos, as far as they are stored.

    Attributes:
        rows: float32 `[n, d]`, a row per photo, undefined where `present` is False; None where
            no row is stored.
        present: bool `[n]`.
        complete: whether `embeddings.npz` has exactly these rows, and there are no parts.
    """

    rows: np.ndarray | None
    present: np.ndarray
    complete: bool


class Store:
    """The folder that keeps embeddings. Nothing is written until a method does.

    Args:
        root: the folder.
        encoder: digest of the encoder (see `encoder_files.py`).
        images: the folder of photos, absolute.
        array: name of what is stored of each photo, of its file and in it.

    Raises:
        EmbedError: if the folder holds something else, or embeddings of another encoder or of
            other photos.
    """

    def __init__(self, root: Path, encoder: str, images: Path, array: str = "embeddings"):
        self.root, self.array = root, array
        self.embeddings = root / f"{array}.npz"
        self.index = root / "index.csv"
        self.skipped = root / "skipped.csv"
        self.about = root / "about.json"
        self.parts = root / "parts"
        self.identity = {
            "encoder_digest": encoder,
            "images": os.fsencode(images).decode("utf-8", "backslashreplace"),
        }
        self._check()

    def _check(self) -> None:
        if reason := why_no_folder(self.root):
            raise EmbedError(f"--out {self.root}: expected a folder, new or not; {reason}")
        try:
            if all(path.name.startswith(".") for path in self.root.iterdir()):
                return
        except FileNotFoundError:
            return
        about = self._read_about()
        if about is None:
            raise EmbedError(
                f"--out {self.root}: expected a new or empty folder, or one that this command "
                "made; it holds something else"
            )
        for key, difference in (
            ("encoder_digest", "another encoder, or of this one before further training"),
            ("images", "another folder"),
        ):
            if about.get(key) != self.identity[key]:
                raise EmbedError(
                    f"--out {self.root}: it holds the {self.array} of {difference}; name another "
                    "folder, or remove --out"
                )

    def _read_about(self) -> dict | None:
        try:
            about = read_json_object(self.about)
        except (OSError, ValueError):
            return None
        return about if "encoder_digest" in about else None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing the folder; one that stays empty is removed again.

        Raises:
            EmbedError: if another process writes there, or the folder can't be made.
        """
        is_new = not self.root.exists()
        with contextlib.ExitStack() as stack:
            try:
                lock = RunLock(self.root, "folder", "Wait for it, or name another --out")
                stack.enter_context(lock)
            except RunFolderError as error:
                raise EmbedError(f"--out {error}") from error
            try:
                yield
            finally:
                if is_new and [path.name for path in self.root.iterdir()] == [LOCK_NAME]:
                    shutil.rmtree(self.root, ignore_errors=True)

    def read(self, photos: Sequence[Photo]) -> StoredEmbeddings:
        """Reads the stored rows of some photos; damaged or incomplete files are ignored.

        Memory: the rows, once.
        """
        row_of = {_key(photo): row for row, photo in enumerate(photos)}
        rows, present = None, np.zeros(len(photos), bool)
        count, parts = 0, self._part_files()
        for file in (self.embeddings, *parts):
            with contextlib.suppress(*_INVALID_FILE):
                index = self._read_index() if file == self.embeddings else _part_index(file)
                keys = _parse_index(index)
                targets = np.array([row_of.get(key, -1) for key in keys], np.int64)
                targets[present[targets]] = -1  # the first one read stays
                start = 0
                for block in _read_blocks(file, self.array, len(keys)):
                    if rows is None:  # pages of np.empty cost nothing until they are written
                        rows = np.empty((len(photos), block.shape[1]), np.float32)
                    block_targets = targets[start : start + len(block)]
                    rows[block_targets[block_targets >= 0]] = block[block_targets >= 0]
                    start += len(block)
                present[targets[targets >= 0]] = True
                if file == self.embeddings:
                    count = len(keys)
        complete = not parts and count == np.count_nonzero(present)
        return StoredEmbeddings(rows if present.any() else None, present, complete)

    def _read_index(self) -> bytes:
        """Reads `index.csv`.

        Raises:
            ValueError: if it isn't the one that was completed last: `embeddings.npz` may belong to
                another.
        """
        about, text = self._read_about(), self.index.read_bytes()
        if about is None or about.get("index_sha256") != hashlib.sha256(text).hexdigest():
            raise ValueError(f"{self.index}: expected the digest of about.json")
        return text

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.npz"), key=lambda path: (len(path.name), path.name))

    def write_part(self, photos: Sequence[Photo], embeddings: np.ndarray) -> None:
        """Writes new rows to a file of their own.

        Args:
            photos: of the rows.
            embeddings: float32 `[n, d]`.

        Raises:
            EmbedError: if the disk refuses.
        """
        with self._writing():
            self.parts.mkdir(exist_ok=True)
            existing = self._part_files()
            number = int(existing[-1].stem) + 1 if existing else 1
            index = np.frombuffer(_index_text(photos).encode(), np.uint8)
            with atomic_file(self.parts / f"{number:04d}.npz") as file:
                np.savez(file, **{"index": index, self.array: embeddings})  # type: ignore[arg-type]

    def write(
        self, photos: Sequence[Photo], embeddings: np.ndarray, skipped: dict[str, str], facts: dict
    ) -> None:
        """Writes all rows and removes the parts. Each file replaces its old version at once.

        `index.csv` is replaced before its rows, and last `about.json` with the digest of the index:
        after a crash in between, `read` ignores the rows.

        Args:
            photos: of the rows.
            embeddings: float32 `[n, d]`.
            skipped: from name to reason.
            facts: for `about.json`.

        Raises:
            EmbedError: if the disk refuses.
        """
        with self._writing():
            index = _index_text(photos)
            with atomic_file(self.embeddings) as file:
                np.savez(file, **{self.array: embeddings})  # type: ignore[arg-type]
                file.flush()  # a full disk shows before the index is replaced
                write_atomically(self.index, index)
            self._write_skipped(skipped)
            digest = hashlib.sha256(index.encode()).hexdigest()
            about = self.identity | facts | {"index_sha256": digest}
            write_atomically(self.about, json.dumps(about, indent=2) + "\n")
            shutil.rmtree(self.parts, ignore_errors=True)

    def write_skipped(self, skipped: dict[str, str]) -> None:
        """Writes `skipped.csv` alone.

        Args:
            skipped: from name to reason.

        Raises:
            EmbedError: if the disk refuses.
        """
        with self._writing():
            self._write_skipped(skipped)

    def _write_skipped(self, skipped: dict[str, str]) -> None:
        if skipped:
            write_csv(self.skipped, ("path", "reason"), sorted(skipped.items()))
        else:
            self.skipped.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes the folder with an `about.json`, so that after a crash it is known as a store."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_left_overs(self.root)
            if not self.about.exists():
                write_atomically(self.about, json.dumps(self.identity, indent=2) + "\n")
            yield
        except OSError as error:
            raise EmbedError(
                f"--out {self.root}: can't be written: {error.strerror or error}"
            ) from error


def default_folder(parent: str, digest: str, images: Path) -> Path:
    """Returns an output folder, the same whenever encoder and folder of photos are.

    Args:
        parent: the folder that it is in.
        digest: of the encoder.
        images: the folder of photos, absolute.
    """
    name_digest = hashlib.sha256(digest.encode() + os.fsencode(images)).hexdigest()[:8]
    return Path(parent) / f"{images.name or 'photos'}-{name_digest}"


def _key(photo: Photo) -> PhotoKey:
    return photo.name, photo.bytes, photo.modified


def _index_text(photos: Sequence[Photo]) -> str:
    rows = ((row, *_key(photo)) for row, photo in enumerate(photos))
    return csv_text(("row", "path", "bytes", "modified"), rows)


def _parse_index(index: bytes) -> list[PhotoKey]:
    """The photos of an index, in the order of its rows, which ascend from 0."""
    table = csv.DictReader(io.StringIO(index.decode("utf-8"), newline=""))
    return [(name_of_cell(row["path"]), int(row["bytes"]), int(row["modified"])) for row in table]


def _part_index(file: Path) -> bytes:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["index"].tobytes()


def _read_blocks(file: Path, array: str, count: int) -> Iterator[np.ndarray]:
    """Reads an array of a file, float32 `[count, d]`, in blocks of rows.

    Raises:
        One of `_INVALID_FILE`: if the file is invalid; where its content is damaged, after the
            last block.
    """
    with zipfile.ZipFile(file) as archive, archive.open(f"{array}.npy") as stream:
        np.lib.format.read_magic(stream)
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        if len(shape) != 2 or shape[0] != count or not shape[1] or fortran_order or dtype != "f4":
            raise ValueError(
                f"{file}: expected float32 [{count}, d]; received {dtype} {list(shape)}"
            )
        width = shape[1]
        block_rows = max(1, _READ_BYTES // (4 * width))
        for start in range(0, count, block_rows):
            rows = min(block_rows, count - start)
            yield np.frombuffer(stream.read(4 * rows * width), np.float32).reshape(rows, width)
