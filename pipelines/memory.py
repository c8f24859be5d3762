"""Memory that this process may take: of the machine, container or job that it runs in."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_NO_LIMIT = 2**62
"""Limits from here on are none: version 1 states nearly 2**63 then."""
_ROOT, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(frozen=True)
class _Version:
    """Names of a version of Linux's control groups.

    Attributes:
        limit: file of the bytes that a group may use; another text where there is no limit.
        usage: file of the bytes that it uses, with the files that the system caches for it.
        cached: entries of `memory.stat` that add up to those files.
    """

    limit: str
    usage: str
    cached: tuple[str, str]


_V1 = _Version(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_active_file", "total_inactive_file"),
)
_V2 = _Version("memory.max", "memory.current", ("active_file", "inactive_file"))


def free_memory() -> int:
    """Returns the bytes that this process may still take before something is killed for memory."""
    free = psutil.virtual_memory().available
    for folder, names, limit in _limits():
        usage = _number(folder / names.usage) or 0
        free = min(free, limit - usage + _cached(folder, names))
    return max(0, free)


def memory_limit() -> int | None:
    """Returns the bytes that the container or job may use in all; None without a limit."""
    return min((limit for _, _, limit in _limits()), default=None)


def _limits() -> Iterator[tuple[Path, _Version, int]]:
    """Yields folder, version and limit of each control group that limits this process."""
    for folder, names in _groups():
        limit = _number(folder / names.limit)
        if limit is not None and limit < _NO_LIMIT:
            yield folder, names, limit


def _groups() -> Iterator[tuple[Path, _Version]]:
    """Yields folder and version of the groups that this process is in: each limits it."""
    try:
        lines = _OWN.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, names = _ROOT, _V2
        elif "memory" in controllers.split(","):
            top, names = _ROOT / "memory", _V1
        else:
            continue
        # Of a container the path may be the host's, of which only the top is there.
        own = top / path.strip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(top):
                yield folder, names


def _cached(folder: Path, names: _Version) -> int:
    """Returns the bytes of cached files, which the system drops when memory is needed."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    entries = dict(line.split(" ", 1) for line in lines if " " in line)
    return sum(int(entries.get(name, 0)) for name in names.cached)


def _number(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
