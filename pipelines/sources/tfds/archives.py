"""Checks of downloaded archives, before TFDS unpacks them."""

import os
import tarfile
from pathlib import Path

from pipelines.sources.base import SourceError


def check_tar(path: Path, max_bytes: int) -> None:
    """Checks the headers of a tar archive, compressed or not; nothing is written.

    Args:
        path: of the archive.
        max_bytes: size that its files may have together.

    Raises:
        SourceError: it can't be read, has anything but files and folders, a path that leaves its
            folder, or more than `max_bytes`.
    """
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                total += member.size
                if error := _member_error(member, total, max_bytes):
                    raise SourceError(f"{path}: {error}. Download it again")
    # Errors of zlib and lzma come as one of these.
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:
        raise SourceError(
            f"{path} is no complete tar archive: {error}. Download it again"
        ) from error


def _member_error(member: tarfile.TarInfo, total: int, max_bytes: int) -> str | None:
    name = repr(member.name)[:80]
    if not (member.isreg() or member.isdir()):
        return f"{name} in it is a link or a device; expected files and folders alone"
    if os.path.isabs(member.name) or ".." in member.name.split("/"):
        return f"{name} in it lies outside the folder that it is unpacked into"
    if total > max_bytes:
        return f"expected at most {max_bytes:,} bytes in it; it unpacks to more"
    return None
