"""Tar archives of images, as WebDataset reads them."""

import json
import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from pipelines.sources.folder.discovery import suffixes_of
from pipelines.sources.folder.table import CLASS_COLUMNS
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.records import BrokenShard, Record, image_facts

_MAX_LABEL = 2**20  # bytes of a member with a label; a larger one is no label
_LABELS = {".txt": 0, ".json": 1, ".cls": 2}
"""Members with a label, by suffix; that of a larger number is preferred."""
_BLOCK = 512


def tar_records(file: BinaryIO, size: int, pixels: PixelFormat = RGB) -> Iterator[Record]:
    """Yields the images of an archive in their order; only headers and labels are read.

    Members belong together whose names are the same up to the first dot of the last part, as in
    WebDataset: `a/1.jpg` has the label of `a/1.cls`, else of `a/1.json`, else of `a/1.txt`.

    Args:
        file: the archive, not compressed.
        size: its bytes.
        pixels: that the images are decoded to, which decides what formats they may have.

    Raises:
        BrokenShard: it is truncated, or no archive.
    """
    images: list[Record] = []
    labels: dict[str, tuple[int, str]] = {}
    suffixes = suffixes_of(pixels)
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # it would keep every header
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if end > size:  # a header may state any size
                    break
                if not member.isreg() or member.issparse() or _is_hidden(member.name):
                    continue
                suffix = os.path.splitext(member.name)[1].lower()
                if suffix in suffixes:
                    offset, length = member.offset_data, member.size
                    facts = image_facts(file, offset, length, pixels)
                    images.append(Record(member.name, None, 0, offset, length, facts))
                elif suffix in _LABELS and member.size <= _MAX_LABEL:
                    file.seek(member.offset_data)
                    label = _label(suffix, file.read(member.size))
                    rank, key = _LABELS[suffix], _key(member.name)
                    if label is not None and rank >= labels.get(key, (0, ""))[0]:
                        labels[key] = rank, label
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise BrokenShard(
            f"it is truncated, or no tar archive ({error}), behind {len(images):,} images"
        ) from error
    if size < end + _BLOCK:  # a block of zeros ends an archive
        raise BrokenShard(f"it is truncated, behind {len(images):,} images")
    for image in images:
        _, label = labels.get(_key(image.name), (0, None))
        yield image._replace(label=label)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != "." for part in name.split("/"))


def _key(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _label(suffix: str, content: bytes) -> str | None:
    """Returns the class that a member names, or None."""
    text = content.decode("utf-8", "replace").strip()
    if suffix != ".json":
        return text or None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    values = (fields[name] for name in CLASS_COLUMNS if name in fields)
    return next((str(value) for value in values if isinstance(value, str | int)), None)
