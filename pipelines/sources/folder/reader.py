"""Reads the photos of a folder, and keeps count of what they were."""

import os
import stat
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.sources.decoding import Facts, UnreadableImage, decode, plain_jpeg
from pipelines.sources.folder.scan_cache import Scan
from pipelines.sources.images import Shape

_CONVERTED = {
    "L": "grey",
    "LA": "grey",
    "1": "black and white",
    "P": "palette",
    "PA": "palette",
    "RGBA": "with transparency",
}


class PhotoReader:
    """Decodes one photo after another; several threads may use it.

    Args:
        folder: what paths are relative to.
        sizes: bytes of each photo when the folder was looked through. One of another size is
            another photo, or half of one.
        image_size: side that photos will be resized to, to count those that are smaller; or None.
        scan: what is known of the photos, and is to be; or None.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, int],
        image_size: int | None,
        scan: Scan | None = None,
    ) -> None:
        self._folder = folder
        self._sizes = sizes
        self._image_size = image_size
        self._scan = scan
        self._settled = False
        self._lock = threading.Lock()
        self._formats: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._turned = 0
        self._smaller = 0
        self._sides: tuple[int, int] | None = None

    def read(self, path: str) -> np.ndarray:
        """Returns the photo at `path` as uint8 `[height, width, 3]`.

        Raises:
            UnreadableImage: it can't be decoded, or isn't the file any more that it was.
        """
        facts = None
        try:
            with self._open(path) as file:
                if self._sizes[path] == 0:
                    raise UnreadableImage("empty file")
                pixels, facts = decode(file)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        finally:
            if self._scan is not None and not self._settled:
                self._scan.note(path, facts)
        self._count(facts)
        return pixels

    def shape(self, path: str) -> Shape:
        """The shape of what `read` returns; a photo that the scan knows isn't opened. Raises as
        `read` does."""
        facts = None if self._scan is None else self._scan.facts(path)
        if facts is None:
            return self.read(path).shape
        self._count(facts)
        return facts.height, facts.width, 3

    def encoded(self, path: str) -> bytes | None:
        """Returns the photo's file if `plain_jpeg` does; None for all else, which `read` takes."""
        try:
            with self._open(path) as file:
                return plain_jpeg(file)
        except (OSError, UnreadableImage):  # `read` says what is wrong
            return None

    def _open(self, path: str) -> BinaryIO:
        """Raises OSError, and UnreadableImage where something else has come into the photo's
        place."""
        # Without O_NONBLOCK, opening a pipe would wait for ever; it makes no difference to a file.
        file = open(  # noqa: SIM115 - kept open by the caller
            self._folder / path,
            "rb",
            opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK),
        )
        try:
            now = os.fstat(file.fileno())
            if not stat.S_ISREG(now.st_mode):
                raise UnreadableImage("not a regular file")
            if now.st_size != self._sizes[path]:
                raise UnreadableImage(
                    f"changed while it was used: {now.st_size:,} bytes, {self._sizes[path]:,} "
                    "before"
                )
        except BaseException:
            file.close()
            raise
        return file

    def settle(self) -> list[str]:
        """Ends the counting, once every photo has been read. Returns lines for people."""
        self._settled = True
        if self._sides is None:
            return []
        notes = [
            f"formats: {_listed(self._formats)}; sides {self._sides[0]:,} to {self._sides[1]:,} "
            "pixels"
        ]
        converted: Counter[str] = Counter()
        for mode, number in self._modes.items():
            if mode != "RGB":
                converted[
                    _CONVERTED.get(
                        mode, "16 bits" if mode in ("I", "F") or mode.startswith("I;16") else mode
                    )
                ] += number
        if converted:
            notes.append(f"converted to RGB: {_listed(converted)}")
        if self._turned:
            notes.append(f"turned upright as EXIF says: {self._turned:,}")
        if self._smaller:
            notes.append(
                f"smaller than data.image_size = {self._image_size}, enlarged: {self._smaller:,}"
            )
        return notes

    def _count(self, facts: Facts) -> None:
        if self._settled:
            return
        low, high = sorted((facts.width, facts.height))
        with self._lock:
            self._formats[facts.format] += 1
            self._modes[facts.mode] += 1
            self._turned += facts.turned
            self._smaller += self._image_size is not None and low < self._image_size
            self._sides = (
                (low, high)
                if self._sides is None
                else (min(low, self._sides[0]), max(high, self._sides[1]))
            )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.most_common())
