"""The line that installs extras, for messages on packages that are missing."""

import importlib.metadata
import json
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_CLONE = Path(__file__).resolve().parents[1]


def install_line(*extras: str) -> str:
    """Returns the line to type that adds extras, or none, to byol_tf where this one is from.

    That is a clone, a wheel file, a repository, or the index of packages.
    """
    named = f"[{','.join(extras)}]" if extras else ""
    if (_CLONE / "setup.cfg").is_file():
        folder = "." if Path.cwd() == _CLONE else _CLONE
        return f'pip install -e "{folder}{named}"'
    url = _origin()
    path = Path(url2pathname(urlsplit(url).path)) if url.startswith("file:") else None
    if path is not None and path.exists():
        return f'pip install "{path}{named}"'
    return f'pip install "byol_tf{named}{f" @ {url}" if url and path is None else ""}"'


def _origin() -> str:
    """Returns the address that pip installed from; "" for an index, or if it isn't known."""
    try:
        text = importlib.metadata.distribution("byol-tf").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        text = None
    origin = json.loads(text or "{}")
    system = origin.get("vcs_info", {}).get("vcs")  # such as git
    return f"{system}+{origin['url']}" if system else str(origin.get("url", ""))
