"""Files of caches: the SHA-256 of the content and a line feed, then the content."""

import contextlib
import hashlib
from pathlib import Path

from PIL import __version__ as pillow_version

from pipelines.sources import heic

_DECODER_VERSION = 2
"""Version of `decode`: increase it when that reads other files, or states other facts of them."""


def decoder_versions() -> str:
    """Returns what the facts about a photo depend on besides the photo."""
    return f"{_DECODER_VERSION}, Pillow {pillow_version}, {heic.version()}"


def write_checked(file: Path, content: bytes) -> bool:
    """Writes a file completely or not at all.

    Returns:
        Whether it was written: a folder that can't be written is no error.
    """
    temporary = file.with_name(f"{file.name}.part")
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as opened:  # not through a link of that name
            opened.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        temporary.replace(file)
        return True
    return False


def read_checked(file: Path) -> bytes | None:
    """Returns the content that `write_checked` wrote; None if the file is missing or damaged."""
    try:
        digest, _, content = file.read_bytes().partition(b"\n")
    except OSError:
        return None
    return content if digest == hashlib.sha256(content).hexdigest().encode() else None
