"""What is known of a folder's photos from an earlier start, so that one whose pixels aren't held
needn't decode each of them again.

Kept in one file outside the folder: SHA-256 of what follows, then JSON. Only photos that could be
read are kept, so what couldn't be is tried at each start; an entry counts while path, size and time
of the last change are the same, and the versions of what decodes. Anything wrong with the file, and
it is as if there were none.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow_version

from pipelines.sources import heic
from pipelines.sources.decoding import Facts
from pipelines.sources.folder.discovery import DiscoveredFiles

_JUDGEMENT = 1
"""To be counted up when `decode` comes to read other files, or states other facts of them."""


class Scan:
    """Facts and digests of photos, by their paths. Several threads may use it.

    Args:
        root: the folder of photos, or the list of them.
        found: what is there now.
        place: the folder where the file lies, or will; None keeps nothing.
    """

    def __init__(self, root: str, found: DiscoveredFiles, place: str | None) -> None:
        absolute = os.path.abspath(os.path.expanduser(root))
        name = hashlib.sha256(os.fsencode(absolute)).hexdigest()[:16]
        self._file = None if place is None else Path(place) / f".photos-{name}.json"
        self._found = found
        self._kept = self._read()
        self._facts = {path: Facts(*entry[2:7]) for path, entry in self._kept.items()}
        self._digests = {
            path: entry[7] for path, entry in self._kept.items() if entry[7] is not None
        }

    def facts(self, path: str) -> Facts | None:
        """What `decode` stated of a photo that could be read."""
        return self._facts.get(path)

    def note(self, path: str, facts: Facts | None) -> None:
        """Takes down what `decode` states of a photo; None where it can't be read."""
        if facts is None:
            self._facts.pop(path, None)
        else:
            self._facts[path] = facts

    def digest(self, folder: Path, path: str) -> str:
        """SHA-256 of a photo's file, in hexadecimal. Raises OSError."""
        if path not in self._digests:
            with open(folder / path, "rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._digests[path]

    def keep(self) -> None:
        """Writes what is known for the next start, if that is more than it was. It goes without,
        where it can't be written."""
        there = self._found.sizes.keys()
        entries = {
            path: [*self._state(path), *astuple(facts), self._digests.get(path)]
            for path, facts in self._facts.items()
            if path in there
        }
        if self._file is None or entries == self._kept:
            return
        text = json.dumps({"by": _versions(), "photos": entries}).encode()
        beside = self._file.with_name(f"{self._file.name}.part")
        with contextlib.suppress(OSError):
            beside.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            beside.replace(self._file)

    def _state(self, path: str) -> tuple[int, int]:
        return self._found.sizes[path], self._found.modified[path]

    def _read(self) -> dict[str, list[Any]]:
        """The entries that still count."""
        if self._file is None:
            return {}
        try:
            digest, _, text = self._file.read_bytes().partition(b"\n")
            kept = json.loads(text) if digest == hashlib.sha256(text).hexdigest().encode() else {}
        except (OSError, ValueError):
            return {}
        if kept.get("by") != _versions():
            return {}
        there = self._found.sizes.keys()
        return {
            path: entry
            for path, entry in kept["photos"].items()
            if path in there and tuple(entry[:2]) == self._state(path)
        }


def _versions() -> str:
    """Of what decodes."""
    return f"{_JUDGEMENT}, Pillow {pillow_version}, {heic.version()}"
