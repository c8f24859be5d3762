"""HEIC and AVIF, the formats of telephones: which Pillow can read here, and what to install."""

import functools
import os
from collections.abc import Iterable
from importlib import metadata
from typing import BinaryIO

_HEIC, _AVIF = "HEIF", "AVIF"  # by Pillow's names
_INSTALL = {
    _HEIC: "HEIC; to read it: pip install pillow-heif",
    _AVIF: 'AVIF; to read it: pip install "pillow>=11.3"',
}
_SUFFIXES = {_HEIC: (".heic", ".heif", ".hif"), _AVIF: (".avif",)}
SUFFIXES = frozenset(suffix for suffixes in _SUFFIXES.values() for suffix in suffixes)
_BRANDS = {
    _AVIF: {b"avif", b"avis"},
    _HEIC: {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"},
}
"""Brands in the first box of a file: ISO 14496-12 and 23008-12. An AVIF may also name a general one
of HEIF."""


@functools.cache
def readable() -> tuple[str, ...]:
    """Returns which of the two can be read, by Pillow's names.

    Pillow reads AVIF by itself, HEIC once pillow-heif is registered with it.
    """
    formats = []
    try:
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            formats.append(_AVIF)
    except ImportError:  # Pillow before 11.3
        pass
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
        formats.append(_HEIC)
    except ImportError:
        pass
    return tuple(formats)


def version() -> str:
    """Returns what `readable` returns, with the version of HEIC's decoder."""
    return ", ".join(
        f"HEIF by pillow-heif {metadata.version('pillow-heif')}" if name == _HEIC else name
        for name in readable()
    )


def is_truncated(file: BinaryIO) -> bool:
    """Returns whether a box of pixels or metadata ends beyond the file's end.

    The decoder of HEIC leaves out tiles that it can't decode, so half a file would be half a
    picture.
    """
    end, offset = file.seek(0, os.SEEK_END), 0
    while offset + 8 <= end:
        file.seek(offset)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # the size is in 64 bits, after the name
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: to the end of the file; others are no box
            return False
        offset += size
        if offset > end and head[4:8] in (b"meta", b"mdat"):
            return True
    return False


def missing_reader(start: bytes) -> str | None:
    """Returns which package would read a file, if it is HEIC or AVIF and can't be read here.

    Args:
        start: the file's first 64 bytes.
    """
    if start[4:8] != b"ftyp":
        return None
    box = start[: int.from_bytes(start[:4], "big")]
    brands = {box[offset : offset + 4] for offset in (8, *range(16, len(box), 4))}
    name = next((name for name, known in _BRANDS.items() if brands & known), None)
    return None if name is None or name in readable() else _INSTALL[name]


def notes(paths: Iterable[str]) -> list[str]:
    """Returns a line for each of the two formats that can't be read here and has files.

    Args:
        paths: of all photos; their suffixes are counted.
    """
    lowercase, lines = [path.lower() for path in paths], []
    for name, suffixes in _SUFFIXES.items():
        count = sum(path.endswith(suffixes) for path in lowercase)
        if count and name not in readable():
            lines.append(f"{count:,} photo(s) can't be read here: {_INSTALL[name]}")
    return lines
