"""The limit of unreadable files."""

import math
from collections import defaultdict
from collections.abc import Mapping

from pipelines.sources.base import SourceError


class TooManyUnreadable(SourceError):
    """More files can't be read than `Request.max_unreadable_fraction` allows.

    Attributes:
        reasons: why each of them can't be read, by its printable path.
    """

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


def check_unreadable(
    root: str | None, reasons: Mapping[str, str], total: int, allowed: float
) -> None:
    """Raises TooManyUnreadable if the limit is exceeded.

    Args:
        root: the folder or list, for the message.
        reasons: for each unreadable file the reason.
        total: number of files, unreadable ones included.
        allowed: largest fraction of unreadable files.
    """
    if len(reasons) <= allowed * total:
        return
    fraction = math.ceil(100 * len(reasons) / total) / 100
    remedy = (
        f"; data.max_unreadable_fraction={fraction:g} skips them" if len(reasons) < total else ""
    )
    raise TooManyUnreadable(
        f"{root}: {len(reasons):,} of {total:,} files can't be read, more than "
        f"data.max_unreadable_fraction = {allowed:g} allows{remedy}. For example "
        f"{unreadable_examples(reasons)}",
        reasons,
    )


def unreadable_examples(reasons: Mapping[str, str]) -> str:
    """Returns the first file of each of the five most frequent reasons.

    The most frequent reason is the one that is worth removing.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for name, reason in sorted(reasons.items()):
        files[reason].append(name)
    most_frequent = sorted(files.items(), key=lambda item: -len(item[1]))[:5]
    return "; ".join(
        f"{names[0]}{f' and {len(names) - 1:,} more' if names[1:] else ''}: {reason}"
        for reason, names in most_frequent
    )
