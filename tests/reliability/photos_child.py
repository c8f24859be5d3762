"""`python -m tests.reliability.photos_child ROOT LIMIT`: opens a folder of photos as a run does,
and says what it found, as JSON.

Without root's rights, to whom no file is closed. The files that VANISH.txt beside the folder names
disappear once they are listed; those that HIDE.txt names are passed over, as a reader would that
hides what it can't read.
"""

import codecs
import hashlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from PIL import Image

from pipelines.sources import SourceError, open_source
from pipelines.sources.folder import source as folder


def named(file: Path) -> list[str]:
    """The paths that a file lists, where there is one."""
    return file.read_text().splitlines() if file.exists() else []


def main() -> None:
    root, limit = Path(sys.argv[1]), float(sys.argv[2])
    Image.init()  # what is imported late may lie where only root can read
    codecs.lookup("unicode_escape")
    metadata.version("pillow")
    if os.getuid() == 0:
        os.setgid(65_534)
        os.setuid(65_534)
    walk = folder.walk

    def walk_and_lose(where, *options):
        found = walk(where, *options)
        for path in named(root.parent / "VANISH.txt"):
            (where / path).unlink(missing_ok=True)
        for path in named(root.parent / "HIDE.txt"):
            found.sizes.pop(path)
        return found

    folder.walk = walk_and_lose
    try:
        source = open_source("folder", root=str(root), cache="none", max_unreadable_fraction=limit)
    except SourceError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(2)
    digests = [
        hashlib.sha256(image.tobytes() + str(image.shape).encode()).hexdigest()
        for image in source.pretrain
    ]
    print(json.dumps({"good": digests, "skipped": source.skipped, "notes": source.notes}))


if __name__ == "__main__":
    main()
