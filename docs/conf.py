"""The documentation site: `make docs` builds it into docs/_build/html.

Pages are plain Markdown that a code host shows as it is; only the tree of pages (index.rst) and the
API reference (api.rst), which exist for the site, are reStructuredText.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # this tree, wherever Sphinx is called from

from sphinx.util.inspect import signature, stringify_signature

from byol_tf import __version__

project = "byol_tf"
author = "The byol_tf authors"
copyright = author
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "README.md"]  # index.rst includes README.md
myst_heading_anchors = 4  # names of headings as code hosts make them
myst_enable_extensions = ["colon_fence"]

default_role = "code"  # single backticks in docstrings are code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Call arguments", "params_style")]

html_theme = "furo"
html_title = f"byol_tf {release}"
html_show_copyright = False
html_show_sourcelink = False


def fences_to_blocks(
    _app: object, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    """Turns Markdown's fenced code in docstrings into reStructuredText's code blocks."""
    fenced = None
    result = []
    for line in lines:
        if match := re.match(r"( *)```(\w*)$", line):
            if fenced is None:
                fenced = match[1]
                result += ["", f"{fenced}.. code-block:: {match[2] or 'text'}", ""]
            else:
                fenced = None
                result.append("")
        else:
            result.append(f"    {line}" if fenced is not None and line else line)
    lines[:] = result


def signature_of_init(
    _app: object, what: str, _name: str, obj: type, _options: object, given: str, _result: str
) -> tuple[str, None] | None:
    """Returns the signature of a class's `__init__`, where Keras' `__new__` hides it."""
    if what == "class" and given == "(*args, **kwargs)":
        return stringify_signature(signature(obj.__init__, bound_method=True)), None
    return None


def setup(app: object) -> None:
    """Registers both; the first before Napoleon's conversion, which reads what it leaves."""
    app.connect("autodoc-process-docstring", fences_to_blocks, priority=100)
    app.connect("autodoc-process-signature", signature_of_init)
