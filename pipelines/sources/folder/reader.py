"""Reads the photos of a folder, and counts formats, modes and sizes."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol, TypeVar

import numpy as np

from pipelines.sources.base import SourceError
from pipelines.sources.decoding import decode, read_header
from pipelines.sources.image_file import HALVED_PIXELS, ImageFacts, UnreadableImage
from pipelines.sources.images import Shape
from pipelines.sources.jpeg import plain_jpeg
from pipelines.sources.pixels import RGB, PixelFormat

T = TypeVar("T")

_CONVERTED = {
    "L": "grey",
    "LA": "grey",
    "1": "black and white",
    "P": "palette",
    "PA": "palette",
    "RGBA": "with transparency",
}


class FactsCache(Protocol):
    """Facts of photos from an earlier start."""

    def facts(self, path: str) -> ImageFacts | None:
        """Returns the facts of a photo that could be read; None where they aren't known."""

    def record(self, path: str, facts: ImageFacts | None) -> None:
        """Stores the facts of a photo; None for an unreadable one."""


class PhotoReader:
    """Decodes photos; several threads may use it.

    Args:
        open_photo: opens a photo by its path. Raises OSError, UnreadableImage.
        sizes: bytes of each photo, by its path.
        image_size: side to which photos will be resized; or None. Those that are smaller are
            counted, and large JPEGs decoded at a fraction of their size.
        scan: cache of facts about the photos; or None.
        pixels: channels, depth and range of what is read.
    """

    def __init__(
        self,
        open_photo: Callable[[str], BinaryIO],
        sizes: Mapping[str, int],
        image_size: int | None,
        scan: FactsCache | None = None,
        pixels: PixelFormat = RGB,
    ) -> None:
        self._open = open_photo
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
        size, wanted = self._image_size, self._pixels
        pixels, _ = self._examine(path, lambda file: decode(file, image_size=size, pixels=wanted))
        return pixels

    def shape(self, path: str, *, by_header: bool = False) -> Shape:
        """Returns the shape of what `read` returns; a photo in the cache isn't opened.

        Args:
            path: of the photo.
            by_header: read no more of the photo than its header, if that is enough.

        Raises:
            UnreadableImage: as `read`; by the header alone, of fewer photos.
        """
        facts = None if self._scan is None else self._scan.facts(path)
        if facts is not None:
            self._count(facts)
        elif by_header:
            wanted = self._pixels
            _, facts = self._examine(path, lambda file: (None, read_header(file, pixels=wanted)))
        else:
            return self.read(path).shape
        return *facts.size, self._pixels.channels

    def _examine(
        self, path: str, examine: Callable[[BinaryIO], tuple[T, ImageFacts]]
    ) -> tuple[T, ImageFacts]:
        """Opens a photo, and records the facts that are found. Raises UnreadableImage."""
        facts = None
        try:
            with self._open(path) as file:
                if self._sizes[path] == 0:
                    raise UnreadableImage("empty file")
                result, facts = examine(file)
        except OSError as error:
            gone = isinstance(error, FileNotFoundError)  # fsspec's has no text
            reason = error.strerror or ("there is no such file" if gone else str(error))
            raise UnreadableImage(reason) from error
        finally:
            if self._scan is not None and self._counting:
                self._scan.record(path, facts)
        self._count(facts)
        return result, facts

    def encoded(self, path: str) -> bytes | None:
        """Returns the photo's file if `plain_jpeg` does; None for any other, which `read` takes."""
        if not self._pixels.is_rgb:
            return None
        try:
            with self._open(path) as file:
                return plain_jpeg(file)
        except (OSError, SourceError, UnreadableImage):  # `read` raises the reason
            return None

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
