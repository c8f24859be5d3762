"""Cache of decoded photo metadata, so that a later start needn't decode every file.

It is one file of JSON outside the photos' folder, see `cache_file.py`. Only photos
that could be read are in it, so another one is tried at each start. An entry is valid while its
path, size, time of the last change, the versions of the decoders, and what was read of each photo
are the same. A file that is damaged counts as missing.
"""

import hashlib
import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pipelines.sources.cache_file import decoder_versions, read_checked, write_checked
from pipelines.sources.folder.discovery import DiscoveredFiles
from pipelines.sources.image_file import ImageFacts
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.urls import is_url


class ScanCache:
    """Facts and digests of photos by path. Several threads may use it.

    Args:
        root: the folder of photos, or the list of them.
        files: the photos that are there now.
        folder: where the cache's file lies or will lie; None: in memory only.
        check: what was or will be read of each photo, see `Request`.
        pixels: that the photos are decoded to, for which each has a cache of its own.
    """

    def __init__(
        self,
        root: str,
        files: DiscoveredFiles,
        folder: str | None,
        check: str = "pixels",
        pixels: PixelFormat = RGB,
    ) -> None:
        absolute = root if is_url(root) else os.path.abspath(os.path.expanduser(root))
        if not pixels.is_rgb:
            absolute += f"\0{pixels}"
        name = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
        self._file = None if folder is None else Path(folder) / f".photos-{name}.json"
        self._files = files
        self._check = check
        self._saved = self._read()
        self._facts = {path: ImageFacts(*entry[2:-1]) for path, entry in self._saved.items()}
        self._digests = {
            path: entry[-1] for path, entry in self._saved.items() if entry[-1] is not None
        }

    def facts(self, path: str) -> ImageFacts | None:
        """Returns the facts that `decode` stated of a readable photo."""
        return self._facts.get(path)

    def record(self, path: str, facts: ImageFacts | None) -> None:
        """Stores the facts of a photo; None for an unreadable one."""
        if facts is None:
            self._facts.pop(path, None)
        else:
            self._facts[path] = facts

    def digest(self, folder: Path, path: str) -> str:
        """Returns the SHA-256 of a photo's file, in hexadecimal. Raises OSError."""
        if path not in self._digests:
            with open(folder / path, "rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]

    def save(self) -> None:
        """Writes the cache if it has changed; a folder that can't be written is no error."""
        entries = {
            path: [*self._state(path), *astuple(facts), self._digests.get(path)]
            for path, facts in self._facts.items()
            if path in self._files.sizes
        }
        if self._file is None or entries == self._saved:
            return
        text = json.dumps({"by": self._made_by(), "photos": entries}).encode()
        write_checked(self._file, text)

    def _made_by(self) -> str:
        """Returns what an entry depends on besides the photo."""
        return f"{decoder_versions()}, {self._check}"

    def _state(self, path: str) -> tuple[int, int]:
        return self._files.sizes[path], self._files.modified[path]

    def _read(self) -> dict[str, list[Any]]:
        """Returns the entries that are still valid."""
        text = None if self._file is None else read_checked(self._file)
        try:
            saved = {} if text is None else json.loads(text)
        except ValueError:
            return {}
        if saved.get("by") != self._made_by():
            return {}
        return {
            path: entry
            for path, entry in saved["photos"].items()
            if path in self._files.sizes and tuple(entry[:2]) == self._state(path)
        }
