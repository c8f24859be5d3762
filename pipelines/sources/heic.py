"""HEIC and AVIF, as telephones write them: what Pillow reads of them here, and what to install for
the others."""

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
"""What the first box of a file names: ISO 14496-12 and 23008-12. An AVIF may name a general brand
of the second set too."""


@functools.cache
def readable() -> tuple[str, ...]:
    """Those of the two that can be read, by Pillow's names. Pillow reads AVIF by itself, HEIC once
    pillow-heif is registered with it."""
    found = []
    try:
        from PIL import AvifImagePlugin

        if AvifImagePlugin.SUPPORTED:
            found.append(_AVIF)
    except ImportError:  # Pillow before 11.3
        pass
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
        found.append(_HEIC)
    except ImportError:
        pass
    return tuple(found)


def version() -> str:
    """What `readable` gives, with the version of what decodes HEIC."""
    return ", ".join(
        f"HEIF by pillow-heif {metadata.version('pillow-heif')}" if kind == _HEIC else kind
        for kind in readable()
    )


def cut_short(file: BinaryIO) -> bool:
    """Whether a box of pixels or of what they are ends behind the file's end.

    The decoder of HEIC leaves tiles that it can't decode as they were, so that half a file would be
    half a picture.
    """
    end, at = file.seek(0, os.SEEK_END), 0
    while at + 8 <= end:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:  # in 64 bits, behind the name
            size = int.from_bytes(head[8:], "big")
        if size < 8:  # 0: to the end of the file; others are no box
            return False
        at += size
        if at > end and head[4:8] in (b"meta", b"mdat"):
            return True
    return False


def what_to_install(start: bytes) -> str | None:
    """What a file is that begins so, and what reads it, if it is one of the two and can't be read
    here. `start`: its first 64 bytes."""
    if start[4:8] != b"ftyp":
        return None
    box = start[: int.from_bytes(start[:4], "big")]
    brands = {box[at : at + 4] for at in (8, *range(16, len(box), 4))}
    kind = next((kind for kind, names in _BRANDS.items() if brands & names), None)
    return None if kind is None or kind in readable() else _INSTALL[kind]


def notes(paths: Iterable[str]) -> list[str]:
    """A line for people for each of the two that some files are by their names and that can't be
    read here."""
    names, lines = [path.lower() for path in paths], []
    for kind, suffixes in _SUFFIXES.items():
        count = sum(name.endswith(suffixes) for name in names)
        if count and kind not in readable():
            lines.append(f"{count:,} photo(s) can't be read here: {_INSTALL[kind]}")
    return lines
