"""The embeddings of a folder's photos, kept so that no photo is embedded twice. Needs no TensorFlow.

```
OUT/
  embeddings.npz   `embeddings`, float32 [n, d]
  index.csv        row, path, bytes, modified: the photo of each row
  skipped.csv      path, reason: what couldn't be read
  about.json       which encoder, which photos, with which command
```
"""

import csv
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from byol_tf.embedding.errors import EmbedError
from byol_tf.run_folder import remove_left_overs, write_atomically
from pipelines.sources import Photo


class Store:
    """The folder. Making the object touches nothing.

    Args:
        root: the folder.
        encoder: digest of the encoder (see `encoder_files.py`).
        images: the folder of photos, absolute.

    Raises:
        EmbedError: if the folder holds something else, or what another encoder or other photos gave.
    """

    def __init__(self, root: Path, encoder: str, images: Path):
        self.root = root
        self.embeddings, self.index = root / "embeddings.npz", root / "index.csv"
        self.skipped, self.about = root / "skipped.csv", root / "about.json"
        self.mark = {"encoder_digest": encoder, "images": os.fsencode(images).decode("utf-8", "backslashreplace")}
        self._check()

    def _check(self) -> None:
        if not self.root.exists() or (self.root.is_dir() and not any(not path.name.startswith(".") for path in self.root.iterdir())):
            return
        about = self._read_about()
        if about is None:
            raise EmbedError(f"--out {self.root}: expected a new or empty folder, or one that this command made; it holds something else")
        for name, what in (("encoder_digest", "another encoder, or of this one before it learned on"), ("images", "another folder")):
            if about.get(name) != self.mark[name]:
                raise EmbedError(f"--out {self.root}: it holds the embeddings of {what}; name another folder, or leave --out out")

    def _read_about(self) -> dict | None:
        try:
            about = json.loads(self.about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return about if isinstance(about, dict) and "encoder_digest" in about else None

    def read(self) -> tuple[dict[tuple[str, int, int], int], np.ndarray | None]:
        """(name, bytes, modified) -> row of what is kept, and the rows; ({}, None) where nothing is, or it isn't whole."""
        about = self._read_about()
        try:
            text = self.index.read_bytes()
            if about is None or about.get("index_sha256") != hashlib.sha256(text).hexdigest():
                return {}, None
            rows = {
                (row["path"], int(row["bytes"]), int(row["modified"])): int(row["row"])
                for row in csv.DictReader(io.StringIO(text.decode("utf-8"), newline=""))
            }
            with np.load(self.embeddings, allow_pickle=False) as arrays:
                embeddings = arrays["embeddings"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError):
            return {}, None
        if embeddings.ndim != 2 or len(embeddings) != len(rows):
            return {}, None
        return rows, embeddings

    def write(self, photos: Sequence[Photo], embeddings: np.ndarray, skipped: dict[str, str], facts: dict) -> None:
        """Writes all of it, each file beside its place and renamed.

        `about.json` comes last, with the digest of the index: what was broken off in between isn't taken for whole.

        Args:
            photos: of the rows.
            embeddings: float32 `[n, d]`.
            skipped: name -> reason.
            facts: for `about.json`.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            remove_left_overs(self.root)
            if not self.about.exists():  # the folder is ours from now on, also if what follows is broken off
                write_atomically(self.about, json.dumps(self.mark, indent=2) + "\n")
            beside = self.root / ".embeddings.npz.part"
            with beside.open("wb") as file:
                np.savez(file, embeddings=embeddings)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.embeddings)
            rows = ((row, photo.name, photo.bytes, photo.modified) for row, photo in enumerate(photos))
            index = csv_text(("row", "path", "bytes", "modified"), rows)
            write_atomically(self.index, index)
            if skipped:
                write_atomically(self.skipped, csv_text(("path", "reason"), sorted(skipped.items())))
            else:
                self.skipped.unlink(missing_ok=True)
            about = self.mark | facts | {"index_sha256": hashlib.sha256(index.encode()).hexdigest()}
            write_atomically(self.about, json.dumps(about, indent=2) + "\n")
        except OSError as error:
            raise EmbedError(f"--out {self.root}: can't be written: {error.strerror or error}") from error


def csv_text(head: Sequence[str], rows) -> str:
    """A table as CSV."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(head)
    table.writerows(rows)
    return text.getvalue()
