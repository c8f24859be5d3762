"""A folder that holds some installed packages, what they require, and nothing else."""

import re
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path


def link_packages(modules: Iterable[str], folder: Path) -> None:
    """Fills a folder with links to the packages that some modules come from, and to all that these require.

    Args:
        modules: top-level names to import, such as `numpy`; one that isn't installed is left out.
        folder: a new one.
    """
    folder.mkdir()
    providers = metadata.packages_distributions()
    waiting, done = [name for module in modules for name in providers.get(module, ())], set()
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
        plain = [line for line in distribution.requires or () if not re.search(r";.*\bextra\s*==", line)]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in plain]
