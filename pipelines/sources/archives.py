"""Archives are looked through before they are unpacked: none may reach outside the folder that it is unpacked into."""

import os
import tarfile
from pathlib import Path

from pipelines.sources.source import SourceError


def check_tar(path: Path, most: int) -> None:
    """Reads the headers of a tar archive, packed or not; a packed one has to be unpacked for that, into nothing.

    Args:
        path: of the archive.
        most: bytes that its files may have together.

    Raises:
        SourceError: it can't be read, holds anything but files and folders, a path that climbs out, or more than `most` bytes.
    """
    total = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = repr(member.name)[:80]
                if not (member.isreg() or member.isdir()):
                    raise SourceError(f"{path}: {name} in it is a link or a device; expected files and folders alone. Download it again")
                if os.path.isabs(member.name) or ".." in member.name.split("/"):
                    raise SourceError(f"{path}: {name} in it lies outside the folder that it is unpacked into. Download it again")
                total += member.size
                if total > most:
                    raise SourceError(f"{path}: expected at most {most:,} bytes in it; it unpacks to more. Download it again")
    except (OSError, EOFError, tarfile.TarError, ValueError) as error:  # zlib's and lzma's errors come as one of these
        raise SourceError(f"{path} is no whole tar archive: {error}. Download it again") from error
