"""A folder with links to some installed packages: an environment with nothing else in it."""

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def link_packages(distributions: Iterable[str], folder: Path) -> None:
    """Fills a new folder with links to distributions and all that they require.

    A process run as `python -I -S` that has this folder on its path can import these alone.

    Args:
        distributions: names such as `numpy`.
        folder: the folder to create.
    """
    folder.mkdir()
    waiting, done = list(distributions), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # required on other systems
            continue
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(distribution.locate_file(top)).resolve())
        required = [
            line for line in distribution.requires or () if not re.search(r";.*\bextra\s*==", line)
        ]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in required]
