"""Finds the shards that a pattern or a folder names; none is opened."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipelines.sources.base import SourceError
from pipelines.sources.folder.layout import roles_in
from pipelines.sources.images import REQUESTS
from pipelines.sources.loading import map_in_order
from pipelines.sources.remote import Location, RemotePath, stamp
from pipelines.urls import is_url

KINDS = {
    "tar": re.compile(r"\.tar$"),
    "array_record": re.compile(r"\.array_?records?(-\d+-of-\d+)?$"),
    "parquet": re.compile(r"\.(parquet|pq)$"),
    # ImageNet's scripts write `train-00000-of-01024`.
    "tfrecord": re.compile(r"(\.tfrec(ord)?s?(-\d+-of-\d+)?|(?<!\.)-\d{5}-of-\d{5})$"),
}
"""Formats of shards, each with how the names of its files end."""
_COMPRESSED = re.compile(r"\.(tgz|(tar|tfrec\w*)(-\d+-of-\d+)?\.(gz|bz2|xz|zst))$")
_NAMES = ".tar, .tfrecord, .array_record or .parquet"
_BRACES = re.compile(r"\{([^{}]*)\}")
_MAGIC = re.compile(r"[*?\[{]")


@dataclass(frozen=True)
class Shard:
    """A file of many images.

    Attributes:
        name: its path below the folder, or below the folder that the pattern begins with.
        location: the file.
        size: its bytes.
        stamp: text that changes with the file; empty where the server states none.
        kind: its format, one of `KINDS`.
    """

    name: str
    location: Location
    size: int
    stamp: str
    kind: str

    @property
    def role(self) -> str | None:
        """The split that the name of the file, or of a folder that it lies in, says."""
        for part in reversed(self.name.split("/")):
            roles = roles_in(part)
            if len(roles) == 1:
                return roles.pop()
        return None


def is_shards(root: str) -> bool:
    """Returns whether a path or URL is that of a shard or a pattern of shards, by its name."""
    return _kind(root) is not None and not os.path.isdir(root)


def find_shards(root: str | None) -> list[Shard]:
    """Returns the shards, ascending by name.

    Args:
        root: a folder, a file, or a pattern with `*`, `?`, `[...]` and `{a,b}` or `{000..999}`; on
            this disk or behind a URL.

    Raises:
        SourceError: there are none, one that is listed is missing, they are of several formats, or
            the server can't be reached.
    """
    if root is None:
        raise SourceError('data.root is missing: data.source "shards" needs the shards')
    path = RemotePath(root)
    # A question mark begins the query of a web address.
    magic = re.compile(r"[*\[{]") if root.startswith("http") else _MAGIC
    # What is there is no pattern: a folder may be called "[2023] photos".
    exists = isinstance(path.fs, LocalFileSystem) and os.path.exists(path.path)
    is_pattern = not exists and magic.search(path.path) is not None
    try:
        if is_pattern:
            infos = _match(path, magic)
        elif _kind(path.path) is not None:
            infos = {path.path: path.info()}
        else:
            infos = path.find()
    except FileNotFoundError as error:
        raise SourceError(f"data.root: there is no {error.args[0] if is_pattern else root}") from (
            error
        )
    # The folder that names are relative to: what precedes the first wildcard, or the file.
    base = path.path.rstrip("/")
    if is_pattern:
        base = magic.split(base)[0]
    if is_pattern or base in infos:
        base = base.rpartition("/")[0]
    found = [
        (file, info, kind)
        for file, info in infos.items()
        if (kind := _kind(file)) is not None
        and info.get("type") != "directory"
        and _is_shown(file, base)
    ]
    shards = list(map_in_order(lambda entry: _shard(path, base, *entry), found, REQUESTS))
    shards.sort(key=lambda shard: shard.name)
    kinds = sorted({shard.kind for shard in shards})
    if len(kinds) == 1:
        return shards
    if kinds:
        raise SourceError(
            f"data.root: {root} has shards of several formats, {', '.join(kinds)}; a pattern such "
            f"as *.{kinds[0]} names those of one"
        )
    if not infos:
        raise SourceError(f"data.root: there is nothing at {root}")
    packed = [file for file in infos if _COMPRESSED.search(file)]
    raise SourceError(
        f"data.root: {root}: expected shards, files named {_NAMES}; found "
        + (
            f"compressed ones, such as {packed[0]}, in which no image can be read by itself; "
            "gunzip unpacks .gz"
            if packed
            else f"{len(infos):,} file(s) and none of those"
        )
    )


def expand_braces(pattern: str) -> list[str]:
    """Returns the texts that a pattern with `{a,b}` and `{000..999}` stands for, as in a shell."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, dots, last = match[1].partition("..")
    if dots and first.isdecimal() and last.isdecimal():
        choices = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    else:
        choices = match[1].split(",")
    rest = expand_braces(pattern[match.end() :])
    return [f"{pattern[: match.start()]}{choice}{tail}" for choice in choices for tail in rest]


def _match(path: RemotePath, magic: re.Pattern) -> dict[str, dict[str, Any]]:
    names = expand_braces(path.path)
    infos: dict[str, dict[str, Any]] = {}
    plain = [name for name in names if not magic.search(name)]
    for name in names:
        if magic.search(name):
            infos |= path.glob(name)

    def info(name: str) -> dict[str, Any]:
        try:
            return path.at(name).info()
        except FileNotFoundError as error:
            raise FileNotFoundError(name) from error

    return infos | dict(zip(plain, map_in_order(info, plain, REQUESTS), strict=True))


def _kind(file: str) -> str | None:
    name = file.partition("?")[0] if is_url(file) else file
    return next((kind for kind, pattern in KINDS.items() if pattern.search(name)), None)


def _is_shown(file: str, base: str) -> bool:
    """Returns whether no name on the way to a file begins with a dot."""
    return not any(part.startswith(".") for part in file[len(base) :].split("/"))


def _shard(root: RemotePath, base: str, file: str, info: dict[str, Any], kind: str) -> Shard:
    remote = root.at(file)
    if info.get("size") is None:  # the listing of a web server
        info = remote.info()
    if info.get("size") is None:
        raise SourceError(
            f"data.root: {remote}: the server doesn't say how large it is; with simplecache:: "
            "before the address it is downloaded once"
        )
    local = isinstance(root.fs, LocalFileSystem)
    return Shard(
        file[len(base) :].strip("/"),
        Path(file) if local else remote,
        int(info["size"]),
        stamp(info),
        kind,
    )
