"""Files that keep the embeddings of a folder's photos, so that no photo is embedded twice.

```
OUT/
  embeddings.npy   float32 [n, d]
  index.csv        row, path, bytes, modified: the photo of each row
  skipped.csv      path, reason: photos that couldn't be read
  about.json       encoder, folder of photos, command, SHA-256 of embeddings.npy and index.csv
  embeddings.parquet, embeddings.usearch
                   made from these on request (see parquet.py, search_index.py)
  parts/           until all photos are embedded: 0001.npz, ..., each with the latest rows;
                   3-of-16/, ..., each with the files of a command with `--part`
```

Rows are read and written in blocks, however many there are.
"""

import contextlib
import csv
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from byol_tf.errors import EmbedError, RunFolderError
from byol_tf.runs.files import (
    atomic_file,
    check_no_link,
    csv_text,
    name_of_cell,
    read_json_object,
    remove_left_overs,
    sha256,
    synced_file,
    temporary_path,
    why_no_folder,
    write_atomically,
    write_csv,
    write_csv_rows,
)
from byol_tf.runs.folder import LOCK_NAME
from byol_tf.runs.lock import RunLock
from pipelines.regular_files import open_regular
from pipelines.sources import Photo, Photos
from pipelines.sources.remote import Location

_READ_BYTES = 2**20
"""Of embeddings that are read at once."""
_INVALID_FILE = (OSError, ValueError, KeyError, TypeError, csv.Error, zipfile.BadZipFile, EOFError)
_PART_NAME = re.compile(r"\d+-of-\d+")
_COLUMNS = ("row", "path", "bytes", "modified")


@dataclass(frozen=True)
class StoredPhotos:
    """The photos that have a stored row.

    Attributes:
        present: bool `[n]`.
        complete: whether `embeddings.npy` has exactly these rows, and there are no parts.
    """

    present: np.ndarray
    complete: bool


class Store:
    """The folder that keeps embeddings. Nothing is written until a method does.

    Args:
        root: the folder.
        encoder: digest of the encoder (see `encoder_files.py`).
        images: the folder of photos, absolute, or their shards.
        array: name of what is stored of each photo, and of its file.

    Raises:
        EmbedError: if the folder holds something else, or embeddings of another encoder or of
            other photos.
    """

    def __init__(self, root: Path, encoder: str, images: Location, array: str = "embeddings"):
        self.root, self.array = root, array
        self._encoder, self._images = encoder, images
        self.embeddings = root / f"{array}.npy"
        self.parquet = root / f"{array}.parquet"
        self.search_index = root / f"{array}.usearch"
        self.index = root / "index.csv"
        self.skipped = root / "skipped.csv"
        self.about = root / "about.json"
        self.parts = root / "parts"
        self.identity = {
            "encoder_digest": encoder,
            "images": os.fsencode(str(images)).decode("utf-8", "backslashreplace"),
        }
        self._locks: list[RunLock] = []  # while `locked` is entered
        self._check()

    def _check(self) -> None:
        if reason := why_no_folder(self.root):
            raise EmbedError(f"--out {self.root}: expected a folder, new or not; {reason}")
        try:
            shown = {path.name for path in self.root.iterdir() if not path.name.startswith(".")}
            if not shown:
                return
            if shown == {self.parts.name} and all(
                _PART_NAME.fullmatch(path.name) for path in self.parts.iterdir()
            ):
                self._stores()  # raises if a part is of something else
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

    def part(self, number: int, count: int) -> "Store":
        """Returns the store of a part of the photos, which `read` and `write` of this one read.

        Raises:
            EmbedError: if another process writes this store's folder, or as the class does.
        """
        try:
            RunLock(self.root, "folder", "Wait for it").check()
        except RunFolderError as error:
            raise EmbedError(f"--out {error}") from error
        return self._part_store(self.parts / f"{number}-of-{count}")

    def _part_store(self, folder: Path) -> "Store":
        return Store(folder, self._encoder, self._images, self.array)

    def _stores(self) -> "list[Store]":
        """This store and those of its parts."""
        parts = sorted(self.parts.iterdir()) if self.parts.is_dir() else []
        return [
            self,
            *(self._part_store(each) for each in parts if _PART_NAME.fullmatch(each.name)),
        ]

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from writing the folder; one that stays empty is removed again.

        Raises:
            EmbedError: if another process writes there, or the folder can't be made.
        """
        is_new = not self.root.exists()
        with contextlib.ExitStack() as stack:
            try:
                for store in self._stores():
                    lock = RunLock(store.root, "folder", "Wait for it, or name another --out")
                    self._locks.append(stack.enter_context(lock))
            except RunFolderError as error:
                raise EmbedError(f"--out {error}") from error
            try:
                yield
            finally:
                self._locks = []
                if is_new and [path.name for path in self.root.iterdir()] == [LOCK_NAME]:
                    shutil.rmtree(self.root, ignore_errors=True)

    def read(self, photos: Photos) -> StoredPhotos:
        """Finds the photos whose rows are stored; damaged or incomplete files are ignored."""
        for store in self._stores():
            store.finish_write()
        present, count = self._scan(photos, self._stores())
        complete = count == np.count_nonzero(present) and not self.parts.exists()
        return StoredPhotos(present, complete)

    def missing(self, photos: Photos) -> np.ndarray:
        """Returns the rows of the photos that `part` divides: int64, those that aren't stored.

        What the stores of parts have counts as missing, so that all parts divide the same photos.
        """
        return np.flatnonzero(~self._scan(photos, [self])[0])

    def load(self) -> np.ndarray:
        """Returns the rows of `embeddings.npy`, float32 `[n, d]`, as a memory map."""
        return np.load(self.embeddings, mmap_mode="r")

    def _scan(
        self,
        photos: Photos,
        stores: "list[Store]",
        put: Callable[[np.ndarray, np.ndarray], None] = lambda rows, places: None,
    ) -> tuple[np.ndarray, int]:
        """Reads all stored rows of some photos.

        Args:
            photos: whose rows are wanted.
            stores: to read.
            put: called with some rows, float32 `[m, d]`, and their places among the photos, int64
                `[m]`; also with those of a file whose end shows that it is damaged.

        Returns:
            (which photos have an undamaged row, bool `[n]`; number of rows in undamaged files).
        """
        present, count = np.zeros(len(photos), bool), 0
        files = [
            (store, file) for store in stores for file in (store.embeddings, *store.part_files())
        ]
        for store, file in files:
            with contextlib.suppress(*_INVALID_FILE), store.open(file) as (index, stream):
                places = np.fromiter(_places(index, photos), np.int64)
                places[present[places]] = -1  # the first one read stays
                start = 0
                for rows in _read_blocks(stream, len(places)):
                    block = places[start : start + len(rows)]
                    put(rows[block >= 0], block[block >= 0])
                    start += len(rows)
                present[places[places >= 0]] = True
                count += len(places)
        return present, count

    @contextlib.contextmanager
    def open(self, file: Path) -> Iterator[tuple[IO[str], IO[bytes]]]:
        """Opens the index and the rows of `embeddings.npy` or of a part.

        Raises:
            One of `_INVALID_FILE`: if they are damaged, or of another version than `about.json`; of
                a part's rows, when they are read to the end.
        """
        if file == self.embeddings:
            for path in (self.index, file):
                if self._digests().get(path.name) != sha256(path):
                    raise ValueError(f"{path}: expected the digest of about.json")
            with (
                self.index.open(encoding="utf-8", newline="") as index,
                file.open("rb") as rows,
            ):
                yield index, rows
        else:
            with open_regular(file) as part:
                with np.load(part, allow_pickle=False) as arrays:
                    text = io.StringIO(arrays["index"].tobytes().decode(), newline="")
                with zipfile.ZipFile(part) as archive, archive.open(f"{self.array}.npy") as member:
                    yield text, member

    def _digests(self) -> dict[str, str]:
        """SHA-256 of `embeddings.npy` and `index.csv` as they were written last."""
        digests = (self._read_about() or {}).get("sha256")
        return digests if isinstance(digests, dict) else {}

    def part_files(self) -> list[Path]:
        """Returns the files in `parts/`, in the order in which they were written."""
        return sorted(self.parts.glob("*.npz"), key=lambda path: (len(path.name), path.name))

    def write_part(self, photos: list[Photo], rows: np.ndarray) -> None:
        """Writes new rows to a file of their own.

        Args:
            photos: of the rows.
            rows: float32 `[n, d]`.

        Raises:
            EmbedError: if the disk refuses.
        """
        with self.writing():
            self.parts.mkdir(exist_ok=True)
            existing = self.part_files()
            number = int(existing[-1].stem) + 1 if existing else 1
            index = np.frombuffer(csv_text(_COLUMNS, _index_rows(photos)).encode(), np.uint8)
            with atomic_file(self.parts / f"{number:04d}.npz") as file:
                np.savez(file, **{"index": index, self.array: rows})  # type: ignore[arg-type]

    def write(self, photos: Photos, skipped: dict[str, str], facts: dict) -> None:
        """Writes the rows of some photos in their order.

        All others are removed, and so are the parts and what was made from the earlier rows.

        After a crash at any moment the old files or the new ones count: those whose digests are in
        `about.json`, which is replaced when both new ones are complete under temporary names.

        Args:
            photos: each with a stored row.
            skipped: from name to reason.
            facts: for `about.json`.

        Raises:
            EmbedError: if the disk refuses, or a row has become unreadable.
        """
        with self.writing():
            new_rows, new_index = temporary_path(self.embeddings), temporary_path(self.index)
            with synced_file(new_rows) as rows, synced_file(new_index) as index:
                self._write_rows(photos, rows)
                write_csv_rows(index, _COLUMNS, _index_rows(photos))
            self._write_skipped(skipped)
            digests = {
                self.embeddings.name: sha256(new_rows),
                self.index.name: sha256(new_index),
            }
            about = self.identity | facts | {"sha256": digests}
            self._check_owner()  # the process may have been suspended while it wrote
            for derived in (self.parquet, self.search_index):
                derived.unlink(missing_ok=True)
            write_atomically(self.about, json.dumps(about, indent=2) + "\n")
            self.finish_write()
            shutil.rmtree(self.parts, ignore_errors=True)

    def _write_rows(self, photos: Photos, file: BinaryIO) -> None:
        """Writes the rows of all photos as `.npy`."""
        start = 0  # of the first row

        def put(rows: np.ndarray, places: np.ndarray) -> None:
            nonlocal start
            try:
                if not start:
                    shape = (len(photos), rows.shape[1])
                    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
                    start = file.tell()
                _write_at(file, start, rows, places)
            except OSError as error:
                raise self._refused(error) from error

        present, _ = self._scan(photos, self._stores(), put)
        if not present.all():
            name = photos[int(np.argmin(present))].name
            raise EmbedError(
                f"--out {self.root}: the stored row of {name} can't be read any more; the same "
                "command embeds the photo again"
            )

    def finish_write(self) -> None:
        """Gives the complete files of `write` their names, if it hasn't."""
        for path in (self.embeddings, self.index):
            temporary = temporary_path(path)
            if temporary.exists() and self._digests().get(path.name) == sha256(temporary):
                temporary.replace(path)

    def write_skipped(self, skipped: dict[str, str]) -> None:
        """Writes `skipped.csv` alone.

        Args:
            skipped: from name to reason.

        Raises:
            EmbedError: if the disk refuses.
        """
        with self.writing():
            self._write_skipped(skipped)

    def _write_skipped(self, skipped: dict[str, str]) -> None:
        if skipped:
            write_csv(self.skipped, ("path", "reason"), sorted(skipped.items()))
        else:
            self.skipped.unlink(missing_ok=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Makes the folder with an `about.json`, so that after a crash it is known as a store.

        Raises:
            EmbedError: on an `OSError` in the block, or if another process has taken over the
                folder, or `parts/` is a link.
        """
        self._check_owner()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_left_overs(self.root)
            if not self.about.exists():
                write_atomically(self.about, json.dumps(self.identity, indent=2) + "\n")
            yield
        except OSError as error:
            raise self._refused(error) from error

    def _check_owner(self) -> None:
        """Raises `EmbedError` if others write here in spite of `locked`, or `parts/` is a link."""
        try:
            for lock in self._locks:
                lock.check_owner()
            check_no_link(self.parts)
        except RunFolderError as error:
            raise EmbedError(f"--out {error}") from error

    def _refused(self, error: OSError) -> EmbedError:
        return EmbedError(f"--out {self.root}: can't be written: {error.strerror or error}")


def default_folder(parent: str, digest: str, images: Location) -> Path:
    """Returns an output folder, the same whenever encoder and folder of photos are.

    Args:
        parent: the folder that it is in.
        digest: of the encoder.
        images: the folder of photos, absolute, or their shards.
    """
    name_digest = hashlib.sha256(digest.encode() + os.fsencode(str(images))).hexdigest()[:8]
    return Path(parent) / f"{Path(str(images)).name or 'photos'}-{name_digest}"


def _index_rows(photos: "Photos | list[Photo]") -> Iterator[tuple[int, str, int, int]]:
    for row, photo in enumerate(photos):
        yield row, photo.name, photo.bytes, photo.modified


def _places(index: IO[str], photos: Photos) -> Iterator[int]:
    """Reads an index, and finds each unchanged photo's row among `photos`; -1 for all others."""
    for row in csv.DictReader(index):
        place = photos.row_of_name(name_of_cell(row["path"]))
        stored = int(row["bytes"]), int(row["modified"])
        if place is not None and (photos[place].bytes, photos[place].modified) != stored:
            place = None
        yield -1 if place is None else place


def _read_blocks(stream: IO[bytes], count: int) -> Iterator[np.ndarray]:
    """Reads an array as `.npy`, float32 `[count, d]`, in blocks of rows.

    Raises:
        One of `_INVALID_FILE`: if it is invalid; where a part's content is damaged, after the last
            block.
    """
    np.lib.format.read_magic(stream)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if len(shape) != 2 or shape[0] != count or not shape[1] or fortran_order or dtype != "<f4":
        raise ValueError(f"expected float32 [{count}, d]; received {dtype} {list(shape)}")
    width = shape[1]
    block_rows = max(1, _READ_BYTES // (4 * width))
    for start in range(0, count, block_rows):
        rows = min(block_rows, count - start)
        yield np.frombuffer(stream.read(4 * rows * width), "<f4").reshape(rows, width)


def _write_at(file: BinaryIO, start: int, rows: np.ndarray, places: np.ndarray) -> None:
    """Writes rows at their places, consecutive ones at once.

    (A memory map would be shorter; on a full disk writing to one kills the process.)
    """
    order = np.argsort(places)
    ends = np.flatnonzero(np.diff(places[order]) != 1) + 1
    for run in np.split(order, ends):
        if len(run):
            file.seek(start + int(places[run[0]]) * rows[0].nbytes)
            file.write(rows[run].data)
