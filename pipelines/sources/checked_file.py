"""Files of caches: the SHA-256 of the content and a line feed, then the content."""

import contextlib
import hashlib
from pathlib import Path


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
