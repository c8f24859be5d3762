"""What is wrong with a config, all of it at once and in words: what was expected, what was
received, what may have been meant."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from byol_tf.config.checks import conflicts
from byol_tf.config.fields import (
    RENAMED,
    SECTIONS,
    Key,
    dotted,
    expected,
    kind,
    listed,
    options,
    quoted,
    shown,
)
from byol_tf.config.json_reader import BrokenJson, Repeat, read_json
from byol_tf.config.schema import Config

MOST_MISTAKES = 100
"""Mistakes of a kind that are told one by one: more of them are a file that isn't a config, and to
look for what was meant takes time."""


@dataclass(frozen=True)
class ConfigIssue:
    """One mistake: where it is, what it is, and the other keys that had a part in it."""

    key: Key
    text: str
    others: tuple[Key, ...] = ()


def validate(
    tree: dict[str, Any], repeats: Sequence[Repeat] = ()
) -> tuple[Config | None, list[ConfigIssue]]:
    """Checks a config as read from JSON.

    Args:
        tree: the config.
        repeats: the keys that are given more than once, and their values.

    Returns:
        The config and no mistakes, or None and every mistake in the order of the tree's keys. What
        is missing stands at the end of its section. Of more than `MOST_MISTAKES` the last one
        stands for the rest.
    """
    found = [ConfigIssue(key, _repeated(values)) for key, values in repeats[:MOST_MISTAKES]]
    tree, unwritable = _without_unwritable_keys(tree)
    found += [ConfigIssue(key, "unknown key") for key in unwritable[:MOST_MISTAKES]]
    tree, left_out = _without_most_unknown_keys(tree)
    config, all_errors = _validate(tree)
    errors = all_errors[:MOST_MISTAKES]
    if len(all_errors) > len(errors):
        key = _key(all_errors[len(errors)])
        found.append(
            ConfigIssue(
                key,
                f"unknown or wrong, and so are {len(all_errors) - len(errors) - 1 + left_out:,} "
                "more keys",
            )
        )
    unknown = {
        _key(error): _unknown_key(_key(error), tree)
        for error in errors
        if error["type"] == "extra_forbidden"
    }
    found += [ConfigIssue(key, text) for key, (text, _) in unknown.items()]
    meant = {key for _, key in unknown.values() if key and not _given(tree, key)}
    wrong = set(unknown)
    for error in errors:
        key = _key(error)
        # One message is enough for the numbers of a list; `conflicts` below says what the whole
        # config lacks.
        if not key or key in wrong:
            continue
        if error["type"] != "missing":
            found.append(ConfigIssue(key, _wrong_value(key, _value(tree, key))))
        elif key not in meant:  # a key that is only misspelt is not missing as well
            found.append(ConfigIssue(key, f"missing; expected {expected(key)}"))
        wrong.add(key)
    doubtful = (
        wrong
        | meant
        | {key for key, _ in repeats}
        | {_key(error) for error in all_errors[MOST_MISTAKES:]} - {()}
    )

    def knows(name: str) -> bool:
        key = tuple(name.split("."))
        return not any(key[:end] in doubtful for end in range(1, len(key) + 1))

    for keys, text in conflicts(lambda name: _value(tree, tuple(name.split("."))), knows):
        first, *others = (tuple(name.split(".")) for name in keys)
        found.append(ConfigIssue(first, text, tuple(others)))
    if not found:
        found = [
            ConfigIssue(key, _wrong_value(key, _value(tree, key)))
            for key in _unwritable_values(tree)
        ]
    found.sort(key=lambda mistake: _position(tree, mistake.key))
    return (None if found else config), found


def _repeated(values: Sequence[Any]) -> str:
    more = ", ..." if len(values) > 5 else ""
    return (
        f"expected once; received {len(values)} times ({', '.join(map(shown, values[:5]))}{more})"
    )


def _without_unwritable_keys(
    tree: dict[str, Any], at: Key = ()
) -> tuple[dict[str, Any], list[Key]]:
    r"""The tree without keys such as "\ud800", half a character that JSON can name and no file can
    hold; pydantic gives up at the first."""
    kept: dict[str, Any] = {}
    unwritable: list[Key] = []
    for name, value in tree.items():
        if _unwritable(name):
            unwritable.append((*at, name))
        elif isinstance(value, dict):
            kept[name], inner = _without_unwritable_keys(value, (*at, name))
            unwritable += inner
        else:
            kept[name] = value
    return kept, unwritable


def _without_most_unknown_keys(tree: dict[str, Any], at: Key = ()) -> tuple[dict[str, Any], int]:
    """The tree with one unknown key more in a section than will be told, and how many were left
    out: pydantic takes half a KiB for each."""
    kept: dict[str, Any] = {}
    left_out = unknown = 0
    for name, value in tree.items():
        if (*at, name) in SECTIONS and isinstance(value, dict):
            kept[name], inner = _without_most_unknown_keys(value, (*at, name))
            left_out += inner
        elif name in SECTIONS[at] or unknown <= MOST_MISTAKES:
            kept[name] = value
            unknown += name not in SECTIONS[at]
        else:
            left_out += 1
    return kept, left_out


def _unwritable(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text)


def _unwritable_values(tree: dict[str, Any], at: Key = ()) -> list[Key]:
    """The keys of such strings, which pydantic takes where it needn't look at them."""
    found = []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _unwritable_values(value, (*at, name))
        elif isinstance(value, str) and _unwritable(value):
            found.append((*at, name))
    return found


def _validate(tree: dict[str, Any]) -> tuple[Config | None, list[Any]]:
    try:
        return Config.model_validate(tree), []
    except ValidationError as error:
        return None, error.errors(include_url=False)


def _key(error: Any) -> Key:
    """The key that an error is about: positions within a list are left out."""
    parts = error["loc"]
    return tuple(
        parts[
            : next((index for index, part in enumerate(parts) if isinstance(part, int)), len(parts))
        ]
    )


def _value(tree: dict[str, Any], key: Key) -> Any:
    """What the tree holds at a key, or else the default."""
    value: Any = tree
    for depth, part in enumerate(key):
        if part not in value:
            default = SECTIONS[key[:depth]][part].get_default()
            for name in key[depth + 1 :]:
                default = getattr(default, name)
            return default
        value = value[part]
    return value


def _position(tree: dict[str, Any], key: Key) -> list[tuple[int, int]]:
    """Sorts keys as the tree gives them; those that it doesn't have follow in the order of the
    documentation."""
    position = []
    section: Any = tree
    for depth, part in enumerate(key):
        present = list(section) if isinstance(section, dict) else []
        known = list(SECTIONS.get(key[:depth], ()))
        position.append(
            (0, present.index(part))
            if part in present
            else (1, known.index(part) if part in known else len(known))
        )
        section = section.get(part) if isinstance(section, dict) else None
    return position


def _wrong_value(key: Key, value: Any) -> str:
    return f"expected {expected(key)}; received {shown(value)}{_hint(key, value)}"


def _hint(key: Key, value: Any) -> str:
    """What may have been meant by a wrong value, or nothing."""
    wanted = kind(key)
    if isinstance(value, str) and options(key):
        nearest = _nearest(value, options(key))
        return f'; did you mean "{nearest}"?' if nearest else ""
    if (
        wanted is int
        and isinstance(value, float)
        and math.isfinite(value)
        and value == int(value)
        and abs(value) < 1e15
    ):
        return f"; did you mean {int(value)}?"
    if isinstance(value, str) and wanted in (int, float, bool):
        try:
            inner = read_json(value)[0]
        except BrokenJson:
            return ""
        fits = (
            isinstance(inner, bool)
            if wanted is bool
            else isinstance(inner, int | float) and not isinstance(inner, bool)
        )
        return f"; did you mean {value.strip()}, without quotes?" if fits else ""
    return ""


def _alike(name: str) -> str:
    return name.lower().strip().replace("-", "_").replace(" ", "_")


def _nearest(name: str, names: Sequence[str], cutoff: float = 0.6) -> str | None:
    alike = {_alike(known): known for known in names}
    found = difflib.get_close_matches(_alike(name[:60]), alike, n=1, cutoff=cutoff)
    return alike[found[0]] if found else None


def _unknown_key(key: Key, tree: dict[str, Any]) -> tuple[str, Key | None]:
    """The message about a key that isn't one, and the key that was meant, if that is clear."""
    section, name = key[:-1], key[-1]
    if dotted(key) in RENAMED:
        new = tuple(RENAMED[dotted(key)].split("."))
        return f'unknown key; it is now called "{dotted(new)}"', new
    own = [known for known in SECTIONS[section] if not known.startswith("$")]
    same = next((known for known in own if _alike(known) == _alike(name)), None)
    homes = [place for place, names in SECTIONS.items() if name in names]
    path = tuple(name.split("."))
    if same is None and homes:
        places = [quoted(dotted(place)) if place else "the top level" for place in homes]
        return f"unknown key; it belongs to {listed(places, 'or')}", (*homes[0], name) if len(
            homes
        ) == 1 else None
    if len(path) > 1 and path[-1] in SECTIONS.get(path[:-1], ()):
        return f'unknown key; write "{path[-1]}" inside "{dotted(path[:-1])}"', path
    nearest = same or _nearest(name, own)
    if nearest:
        return f'unknown key; did you mean "{nearest}"{_now(tree, (*section, nearest))}?', (
            *section,
            nearest,
        )
    everywhere = {known: (*place, known) for place, names in SECTIONS.items() for known in names}
    elsewhere = _nearest(name, list(everywhere), cutoff=0.75)
    if elsewhere:
        far = everywhere[elsewhere]
        return f'unknown key; did you mean "{dotted(far)}"{_now(tree, far)}?', far
    owner = quoted(dotted(section)) if section else "the top level"
    return f"unknown key; {owner} takes {listed(list(map(quoted, own)), 'and')}", None


def _given(tree: dict[str, Any], key: Key) -> bool:
    """Whether the tree itself holds a key, rather than its default."""
    value: Any = tree
    for part in key:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return True


def _now(tree: dict[str, Any], key: Key) -> str:
    """` (now 100)` if the tree gives the key a plain value."""
    if not _given(tree, key) or key in SECTIONS:
        return ""
    return f" (now {shown(_value(tree, key))})"
