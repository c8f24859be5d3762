"""What every key of a config means, for people: read from the types of `schema.py`, so it can't
differ from what is checked."""

import difflib
import json
import re
import textwrap
from collections.abc import Iterator

from pydantic.fields import FieldInfo

from byol_tf.config.fields import SECTIONS, Key, expected, kind


def explain(name: str) -> str:
    """What a key or a section is, in lines for a terminal.

    Args:
        name: `training.epochs`, or a section such as `tau`; "" is the whole config.

    Raises:
        KeyError: if there is no such key; the text names near ones.
    """
    key = tuple(part for part in name.split(".") if part)
    if key in SECTIONS:
        return (
            "\n".join(
                _entry((*key, field), info)
                for field, info in SECTIONS[key].items()
                if (*key, field) not in SECTIONS
            )
            or name
        )
    if key and key[:-1] in SECTIONS and key[-1] in SECTIONS[key[:-1]]:
        return _entry(key, SECTIONS[key[:-1]][key[-1]])
    known = [".".join(each) for each, _ in keys()] + [
        ".".join(section) for section in SECTIONS if section
    ]
    ends = [other for other in known if other.split(".")[-1] == key[-1]] if key else []
    near = ends or difflib.get_close_matches(name, known, n=3)
    raise KeyError(
        f"--explain {name}: no such key" + (f"; did you mean {' or '.join(near)}?" if near else "")
    )


def sections_help() -> str:
    """A line for each section of a config: its name, and the first sentence of what it is."""
    lines = []
    for section in filter(None, SECTIONS):
        meaning = SECTIONS[section[:-1]][section[-1]].description or kind(section).__doc__
        first = re.split(r"(?<=\.)\s", " ".join(meaning.split()), maxsplit=1)[0]
        lines.append(
            textwrap.fill(
                first, 120, initial_indent=f"  {'.'.join(section):<13} ", subsequent_indent=" " * 16
            )
        )
    return "\n".join(lines)


def keys() -> Iterator[tuple[Key, FieldInfo]]:
    """Every key that holds a value, in the order of `schema.py`."""
    for section, fields in SECTIONS.items():
        for field, info in fields.items():
            if (*section, field) not in SECTIONS:
                yield (*section, field), info


def config_markdown() -> str:
    """`docs/config.md`: a table a section."""
    lines = [
        "# Every key of a config",
        "",
        "Made from the types in `byol_tf/config/schema.py` (`python -m byol_tf.config.docs > "
        "docs/config.md`).",
        "`python -m byol_tf.train --explain training.epochs` prints one of them, `--explain tau` a "
        "section.",
        "Any key can be changed on the command line: `--set training.epochs=5`. Editors complete "
        "and check keys by `configs/schema.json`.",
    ]
    for section, fields in SECTIONS.items():
        rows = [
            (field, (*section, field), info)
            for field, info in fields.items()
            if (*section, field) not in SECTIONS
        ]
        if not rows:
            continue
        lines += [
            "",
            f"## {'.'.join(section) or 'The top level'}",
            "",
            "| key | what it takes | default | what it is |",
            "|---|---|---|---|",
        ]
        for field, key, info in rows:
            cells = (
                f"`{field}`",
                expected(key),
                f"`{_default(info)}`" if not info.is_required() else "needed",
                info.description or "",
            )
            lines.append(f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _entry(key: Key, info: FieldInfo) -> str:
    default = "needed" if info.is_required() else f"default: {_default(info)}"
    text = " ".join((info.description or "").split())
    return f"{'.'.join(key)}: {expected(key)}; {default}\n  {text}"


def _default(info: FieldInfo) -> str:
    return json.dumps(info.get_default(call_default_factory=True))


if __name__ == "__main__":
    print(config_markdown(), end="")
