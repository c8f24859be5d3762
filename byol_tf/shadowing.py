"""A folder of the user's that stands before a package of ours."""

import importlib.util
import sys
from pathlib import Path

_OURS = Path(__file__).resolve().parents[1]


def refuse_other_packages() -> None:
    """Looks whether `pipelines` is the package that is installed beside this one; imports nothing.

    `python -m` imports from the current folder first, where a frequent name like that may be the user's own.

    Raises:
        SystemExit: with exit code 2, and a message, where this process is a command of ours.
        ImportError: in any other process.
    """
    found = importlib.util.find_spec("pipelines")
    if found is None or found.origin is None or Path(found.origin).resolve().is_relative_to(_OURS / "pipelines"):
        return  # what isn't there at all is told by the first import of it
    place = Path(found.origin)
    place = place.parent if place.name == "__init__.py" else place
    text = f"{place}: expected byol_tf's own pipelines, {_OURS / 'pipelines'}, to be found first; rename that one, or run this elsewhere"
    if sys.argv[:1] == ["-m"]:  # while `python -m byol_tf...` looks for its module
        print(text, file=sys.stderr)
        raise SystemExit(2)
    raise ImportError(text)
