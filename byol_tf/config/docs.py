"""Documentation of every config key for terminals, editors and `docs/config.md`.

It is made from the types and docstrings of `schema.py`, so it can't differ from what is checked.
"""

import difflib
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from byol_tf.config.fields import SECTIONS, Key, key_type
from byol_tf.config.messages import describe_expected
from byol_tf.config.schema import Config


def explain(name: str) -> str:
    """Returns the documentation of a key, or of all keys of a section, for a terminal.

    Args:
        name: `training.epochs`, or a section such as `tau`; "" is the top level.

    Raises:
        KeyError: if there is no such key; the message names near ones.
    """
    key = tuple(part for part in name.split(".") if part)
    if key in SECTIONS:
        entries = [_entry(inner, info) for inner, info in _section_keys(key)]
        return "\n".join(entries) or name
    if key and key[:-1] in SECTIONS and key[-1] in SECTIONS[key[:-1]]:
        return _entry(key, SECTIONS[key[:-1]][key[-1]])
    known = [".".join(other) for other, _ in keys()]
    known += [".".join(section) for section in SECTIONS if section]
    same_last_part = [other for other in known if other.split(".")[-1] == key[-1]] if key else []
    near = same_last_part or difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise KeyError(f"--explain {name}: no such key{hint}")


def sections_help() -> str:
    """Returns a line for each section of a config: its name and its docstring's first sentence."""
    lines = []
    for section in filter(None, SECTIONS):
        meaning = SECTIONS[section[:-1]][section[-1]].description or key_type(section).__doc__
        first = re.split(r"(?<=\.)\s", _one_line(meaning), maxsplit=1)[0]
        label = f"  {'.'.join(section):<13} "
        lines.append(textwrap.fill(first, 120, initial_indent=label, subsequent_indent=" " * 16))
    return "\n".join(lines)


def keys() -> Iterator[tuple[Key, FieldInfo]]:
    """Yields every key that holds a value, in the order of `schema.py`."""
    for section in SECTIONS:
        yield from _section_keys(section)


def _section_keys(section: Key) -> Iterator[tuple[Key, FieldInfo]]:
    for name, info in SECTIONS[section].items():
        if (*section, name) not in SECTIONS:
            yield (*section, name), info


def config_markdown() -> str:
    """Returns the text of `docs/config.md`: a table for each section."""
    lines = [
        "# Every key of a config",
        "",
        "Made from the types in `byol_tf/config/schema.py` (`python -m byol_tf.config.docs > "
        "docs/config.md`).",
        "`byol train --explain training.epochs` prints one of them, `--explain tau` a section.",
        "Any key can be changed on the command line: `--set training.epochs=5`. Editors complete "
        "and check keys by `configs/schema.json`.",
    ]
    for section in SECTIONS:
        rows = list(_section_keys(section))
        if not rows:
            continue
        lines += [
            "",
            f"## {'.'.join(section) or 'The top level'}",
            "",
            "| key | what it takes | default | what it is |",
            "|---|---|---|---|",
        ]
        for key, info in rows:
            default = "needed" if info.is_required() else f"`{_default(info)}`"
            cells = (f"`{key[-1]}`", describe_expected(key), default, info.description or "")
            lines.append(f"| {' | '.join(map(_one_line, cells))} |")
    return "\n".join(lines) + "\n"


def schema_json() -> str:
    """Returns the text of `configs/schema.json`, by which editors complete and check keys."""
    return json_schema(Config)


def json_schema(model: type[BaseModel]) -> str:
    """Returns the JSON schema of a pydantic model as text.

    Each description is on one line, without its example.
    """
    return json.dumps(_unwrap_descriptions(model.model_json_schema(by_alias=True)), indent=2) + "\n"


def _unwrap_descriptions(value: Any) -> Any:
    if isinstance(value, list):
        return list(map(_unwrap_descriptions, value))
    if not isinstance(value, dict):
        return value
    return {
        name: _one_line(inner.partition("Example:")[0])
        if name == "description" and isinstance(inner, str)
        else _unwrap_descriptions(inner)
        for name, inner in value.items()
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _entry(key: Key, info: FieldInfo) -> str:
    default = "needed" if info.is_required() else f"default: {_default(info)}"
    text = _one_line(info.description or "")
    return f"{'.'.join(key)}: {describe_expected(key)}; {default}\n  {text}"


def _default(info: FieldInfo) -> str:
    return json.dumps(info.get_default(call_default_factory=True))


if __name__ == "__main__":
    print(config_markdown(), end="")  # noqa: T201 - the text is this command's output
