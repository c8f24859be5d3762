"""Reads the photos of a folder, and counts formats, modes and sizes."""

import os
import stat
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.sources.decoding import (
    HALVED_PIXELS,
    ImageFacts,
    UnreadableImage,
    decode,
    plain_jpeg,
)
from pipelines.sources.folder.scan_cache import ScanCache
from pipelines.sources.images import Shape
from pipelines.sources.pixels import RGB, PixelFormat

_CONVERTED = {
    "L": "grey",
    "LA": "grey",
    "1": "black and white",
    "P": "palette",
    "PA": "palette",
    "RGBA": "with transparency",
}
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
"""Without it, opening a pipe would wait for ever; it makes no difference to a file. Windows has
none."""


class PhotoReader:
    """Decodes photos; several threads may use it.

    Args:
        folder: what paths are relative to.
        sizes: bytes of each photo when it was discovered. A file of another size is another photo,
            or half of one.
        image_size: side to which photos will be resized; or None. Those that are smaller are
            counted, and large JPEGs decoded at a fraction of their size.
        scan: cache of facts about the photos; or None.
        pixels: channels, depth and range of what is read.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Mapping[str, int],
        image_size: int | None,
        scan: ScanCache | None = None,
        pixels: PixelFormat = RGB,
    ) -> None:
        self._folder = folder
        self._sizes = sizes
        self._image_size = image_size
        self._scan = scan
        self._pixels = pixels
        self._counting = True
        self._lock = threading.Lock()
        self._formats: Counter[str] = Counter()
        self._modes: Counter[str] = Counter()
        self._rotated = 0
        self._smaller = 0
        self._bits: Counter[str] = Counter()
        self._halved = 0
        self._sides: tuple[int, int] | None = None

    def read(self, path: str) -> np.ndarray:
        """Returns a photo's pixels; see `decode`.

        Raises:
            UnreadableImage: it can't be decoded, or the file has changed.
        """
        facts = None
        try:
            with self._open(path) as file:
                if self._sizes[path] == 0:
                    raise UnreadableImage("empty file")
                pixels, facts = decode(file, image_size=self._image_size, pixels=self._pixels)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        finally:
            if self._scan is not None and self._counting:
                self._scan.record(path, facts)
        self._count(facts)
        return pixels

    def shape(self, path: str) -> Shape:
        """Returns the shape of what `read` returns; a photo in the cache isn't opened.

        Raises what `read` raises.
        """
        facts = None if self._scan is None else self._scan.facts(path)
        if facts is None:
            return self.read(path).shape
        self._count(facts)
        return facts.height, facts.width, self._pixels.channels

    def encoded(self, path: str) -> bytes | None:
        """Returns the photo's file if `plain_jpeg` does; None for any other, which `read` takes."""
        if not self._pixels.is_rgb:
            return None
        try:
            with self._open(path) as file:
                return plain_jpeg(file)
        except (OSError, UnreadableImage):  # `read` raises the reason
            return None

    def _open(self, path: str) -> BinaryIO:
        """Opens a photo. Raises OSError, and UnreadableImage where the file has been replaced."""
        file = open(  # noqa: SIM115 - closed by the caller
            self._folder / path,
            "rb",
            opener=lambda name, flags: os.open(name, flags | _NONBLOCK),
        )
        try:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImage("not a regular file")
            if status.st_size != self._sizes[path]:
                raise UnreadableImage(
                    f"changed while it was used: {status.st_size:,} bytes, {self._sizes[path]:,} "
                    "before"
                )
        except BaseException:
            file.close()
            raise
        return file

    def finish_counting(self) -> list[str]:
        """Returns lines for people about all photos read so far, and counts no more."""
        self._counting = False
        if self._sides is None:
            return []
        notes = [
            f"formats: {_listed(self._formats)}; sides {self._sides[0]:,} to {self._sides[1]:,} "
            "pixels"
        ]
        converted: Counter[str] = Counter()
        for mode, number in self._modes.items():
            if mode != "RGB" and self._pixels.is_rgb:
                deep = mode in ("I", "F") or mode.startswith("I;16")
                converted["16 bits" if deep else _CONVERTED.get(mode, mode)] += number
        if converted:
            notes.append(f"converted to RGB: {_listed(converted)}")
        if self._rotated:
            notes.append(f"turned upright as EXIF says: {self._rotated:,}")
        if self._bits:
            notes.append(
                f"numbers of 16 bits that hold fewer, brightened: {_listed(self._bits)} photo(s)"
            )
        if self._halved:
            notes.append(
                f"more than {HALVED_PIXELS / 1e6:.0f} megapixels, read at half their width and "
                f"height: {self._halved:,}"
            )
        if self._smaller:
            notes.append(
                f"smaller than data.image_size = {self._image_size}, enlarged: {self._smaller:,}"
            )
        return notes

    def _count(self, facts: ImageFacts) -> None:
        if not self._counting:
            return
        low, high = sorted((facts.width, facts.height))
        with self._lock:
            self._formats[facts.format] += 1
            self._modes[facts.mode] += 1
            self._rotated += facts.rotated
            self._smaller += self._image_size is not None and low < self._image_size
            if facts.bits:
                self._bits[f"{facts.bits} bits"] += 1
            self._halved += facts.halved
            self._sides = (
                (low, high)
                if self._sides is None
                else (min(low, self._sides[0]), max(high, self._sides[1]))
            )


def _listed(counts: Counter[str]) -> str:
    # Equal numbers by name: several threads count.
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {number:,}" for name, number in ordered)
