"""The embeddings of a folder's photos, kept so that no photo is embedded twice. Needs no
TensorFlow.

```
OUT/
  embeddings.npz   `embeddings`, float32 [n, d]
  index.csv        row, path, bytes, modified: the photo of each row
  skipped.csv      path, reason: what couldn't be read
  about.json       which encoder, which photos, with which command
  parts/           only until all photos are embedded: 0001.npz and so on, each with what was new
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

from byol_tf.errors import EmbedError
from byol_tf.runs.files import (
    atomic_file,
    csv_text,
    remove_left_overs,
    write_atomically,
    write_csv,
)
from pipelines.sources import Photo

_BLOCK_BYTES = 2**22
"""Of embeddings that are read at once."""
_NOT_WHOLE = (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError)

_Key = tuple[str, int, int]
"""Name, bytes and time of a photo's last change: what tells whether it is still the same one."""


@dataclass(frozen=True)
class Kept:
    """What is kept of some photos.

    Attributes:
        rows: float32 `[n, d]`, a row a photo, to be filled in where `there` is false; None where
            nothing is kept.
        there: bool `[n]`, whether a photo's row is kept.
        complete: whether `embeddings.npz` holds all of these rows, and no others.
    """

    rows: np.ndarray | None
    there: np.ndarray
    complete: bool


class Store:
    """The folder. Making the object touches nothing.

    Args:
        root: the folder.
        encoder: digest of the encoder (see `encoder_files.py`).
        images: the folder of photos, absolute.

    Raises:
        EmbedError: if the folder holds something else, or what another encoder or other photos
            gave.
    """

    def __init__(self, root: Path, encoder: str, images: Path):
        self.root = root
        self.embeddings, self.index = root / "embeddings.npz", root / "index.csv"
        self.skipped, self.about, self.parts = (
            root / "skipped.csv",
            root / "about.json",
            root / "parts",
        )
        self.mark = {
            "encoder_digest": encoder,
            "images": os.fsencode(images).decode("utf-8", "backslashreplace"),
        }
        self._check()

    def _check(self) -> None:
        if not self.root.exists() or (
            self.root.is_dir()
            and not any(not path.name.startswith(".") for path in self.root.iterdir())
        ):
            return
        about = self._read_about()
        if about is None:
            raise EmbedError(
                f"--out {self.root}: expected a new or empty folder, or one that this command "
                "made; it holds something else"
            )
        for name, what in (
            ("encoder_digest", "another encoder, or of this one before it learned on"),
            ("images", "another folder"),
        ):
            if about.get(name) != self.mark[name]:
                raise EmbedError(
                    f"--out {self.root}: it holds the embeddings of {what}; name another folder, "
                    "or leave --out out"
                )

    def _read_about(self) -> dict | None:
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return about if isinstance(about, dict) and "encoder_digest" in about else None

    def read(self, photos: Sequence[Photo]) -> Kept:
        """Reads what is kept of some photos; a file that isn't whole is passed over.

        Memory: the rows, once.
        """
        at = {(photo.name, photo.bytes, photo.modified): row for row, photo in enumerate(photos)}
        rows, there = None, np.zeros(len(photos), bool)
        held, parts = 0, self._parts()
        for file in (self.embeddings, *parts):
            with contextlib.suppress(*_NOT_WHOLE):
                keys = _keys(self._index() if file == self.embeddings else _part_index(file))
                targets = np.array([at.get(key, -1) for key in keys], np.int64)
                targets[
                    there[targets]
                ] = -1  # what was whole stays; for -1 itself it makes no difference
                first = 0
                for block in _blocks(file, len(keys)):
                    if rows is None:  # pages of np.empty cost nothing until they are written
                        rows = np.empty((len(photos), block.shape[1]), np.float32)
                    to = targets[first : first + len(block)]
                    rows[to[to >= 0]] = block[to >= 0]
                    first += len(block)
                there[targets[targets >= 0]] = True
                if file == self.embeddings:
                    held = len(keys)
        return Kept(
            rows if there.any() else None, there, not parts and held == np.count_nonzero(there)
        )

    def _index(self) -> bytes:
        """`index.csv`. `ValueError` where it isn't the one that was written last: `embeddings.npz`
        may be of another."""
        about, text = self._read_about(), self.index.read_bytes()
        if about is None or about.get("index_sha256") != hashlib.sha256(text).hexdigest():
            raise ValueError(f"{self.index}: expected the digest of about.json")
        return text

    def _parts(self) -> list[Path]:
        return sorted(self.parts.glob("*.npz"), key=lambda path: (len(path.name), path.name))

    def write_part(self, photos: Sequence[Photo], embeddings: np.ndarray) -> None:
        """Writes what is new, beside what is there.

        Args:
            photos: of the rows.
            embeddings: float32 `[n, d]`.
        """
        with self._writing():
            self.parts.mkdir(exist_ok=True)
            taken = [path.stem for path in self._parts()]
            number = int(taken[-1]) + 1 if taken else 1
            index = np.frombuffer(_index_text(photos).encode(), np.uint8)
            part = self.parts / f"{number:04d}.npz"
            with atomic_file(part) as file:
                np.savez(file, index=index, embeddings=embeddings)

    def write(
        self, photos: Sequence[Photo], embeddings: np.ndarray, skipped: dict[str, str], facts: dict
    ) -> None:
        """Writes all of it, each file beside its place and renamed.

        `index.csv` comes before its rows, and last `about.json` with the digest of the index: what
        was broken off in between isn't taken for whole.

        Args:
            photos: of the rows.
            embeddings: float32 `[n, d]`.
            skipped: name -> reason.
            facts: for `about.json`.
        """
        with self._writing():
            index = _index_text(photos)
            with atomic_file(self.embeddings) as file:
                np.savez(file, embeddings=embeddings)
                file.flush()  # a full disk shows before the index is replaced
                write_atomically(self.index, index)
            self._write_skipped(skipped)
            about = self.mark | facts | {"index_sha256": hashlib.sha256(index.encode()).hexdigest()}
            write_atomically(self.about, json.dumps(about, indent=2) + "\n")
            shutil.rmtree(self.parts, ignore_errors=True)

    def write_skipped(self, skipped: dict[str, str]) -> None:
        """Writes `skipped.csv` alone, name -> reason."""
        with self._writing():
            self._write_skipped(skipped)

    def _write_skipped(self, skipped: dict[str, str]) -> None:
        if skipped:
            write_csv(self.skipped, ("path", "reason"), sorted(skipped.items()))
        else:
            self.skipped.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """The folder is ours from its first file on, also if what follows is broken off.
        `EmbedError` if the disk refuses."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_left_overs(self.root)
            if not self.about.exists():
                write_atomically(self.about, json.dumps(self.mark, indent=2) + "\n")
            yield
        except OSError as error:
            raise EmbedError(
                f"--out {self.root}: can't be written: {error.strerror or error}"
            ) from error


def _index_text(photos: Sequence[Photo]) -> str:
    rows = ((row, photo.name, photo.bytes, photo.modified) for row, photo in enumerate(photos))
    return csv_text(("row", "path", "bytes", "modified"), rows)


def _keys(index: bytes) -> list[_Key]:
    """The photos of an index, in the order of its rows, which ascend from 0."""
    table = csv.DictReader(io.StringIO(index.decode("utf-8"), newline=""))
    return [(row["path"], int(row["bytes"]), int(row["modified"])) for row in table]


def _part_index(file: Path) -> bytes:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["index"].tobytes()


def _blocks(file: Path, count: int) -> Iterator[np.ndarray]:
    """The `embeddings` of a file, float32 `[count, d]`, some rows at a time. `_NOT_WHOLE` at the
    latest after the last one."""
    with zipfile.ZipFile(file) as archive, archive.open("embeddings.npy") as stream:
        np.lib.format.read_magic(stream)
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
        if (
            len(shape) != 2
            or shape[0] != count
            or not shape[1]
            or columns_first
            or dtype != np.float32
        ):
            raise ValueError(
                f"{file}: expected float32 [{count}, d]; received {dtype} {list(shape)}"
            )
        some = max(1, _BLOCK_BYTES // (4 * shape[1]))
        for first in range(0, count, some):
            size = min(some, count - first), shape[1]
            yield np.frombuffer(stream.read(4 * size[0] * size[1]), np.float32).reshape(size)
