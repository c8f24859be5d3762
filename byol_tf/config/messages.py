"""Wording of messages about a config: keys, values, what was expected, what may have been meant."""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from byol_tf.config.fields import (
    RENAMED,
    SECTIONS,
    Key,
    accepts_null,
    allowed_values,
    field_info,
    is_given,
    is_section,
    key_type,
    split_key,
    unwrap,
    value_or_default,
)
from byol_tf.errors import escape


def format_value(value: Any) -> str:
    """Returns a value as JSON, escaped and shortened as `escape` does."""
    return escape(json.dumps(value, ensure_ascii=False))


def join_key(key: Key) -> str:
    """Returns a key as messages write it: `training.epochs`; a name with other signs is quoted."""
    return ".".join(
        name if re.fullmatch(r"[\w$-]{1,60}", name) else format_value(name) for name in key
    )


def quote(word: str) -> str:
    """Returns `"word"`."""
    return f'"{word}"'


def join_words(words: Sequence[str], conjunction: str) -> str:
    """Returns `a, b or c` for the conjunction `or`."""
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


def describe_expected(key: Key) -> str:
    """Returns what a key takes: `a whole number of 2 or more`. Raises `KeyError` if unknown."""
    info = field_info(key)
    if not accepts_null(key):
        return _describe(*unwrap(info.annotation, info.metadata))
    if allowed_values(key):
        return join_words([*map(quote, allowed_values(key)), "null"], "or")
    return f"{_describe(*unwrap(info.annotation, info.metadata))}, or null"


def _describe(plain: Any, constraints: list[Any]) -> str:
    for constraint in constraints:
        # `ExpectedText`, or the function of an `AfterValidator`, such as `IncreasingRange`
        text = getattr(getattr(constraint, "func", constraint), "expected", None)
        if text:
            return text
    if get_origin(plain) is Literal:
        return join_words(list(map(json.dumps, get_args(plain))), "or")
    if is_section(plain):
        required = [name for name, info in plain.model_fields.items() if info.is_required()]
        names = f" with {join_words(list(map(quote, required)), 'and')}" if required else ""
        return f"an object{names}"
    bounds = {
        name: getattr(constraint, name)
        for constraint in constraints
        for name in ("ge", "gt", "le", "lt")
        if getattr(constraint, name, None) is not None
    }
    if plain is bool:
        return "true or false"
    if plain is int:
        return _describe_int(bounds)
    if plain is float:
        return _describe_float(bounds)
    if plain is str:
        not_empty = any(getattr(constraint, "min_length", 0) for constraint in constraints)
        return "a string that is not empty" if not_empty else "a string"
    raise TypeError(f"no words for {plain}")


def _describe_int(bounds: dict[str, int]) -> str:
    low = bounds.get("ge", bounds["gt"] + 1 if "gt" in bounds else None)
    high = bounds.get("le", bounds["lt"] - 1 if "lt" in bounds else None)
    if low is not None and high is not None:
        return f"a whole number from {low} to {high}"
    at_least = "" if low is None else f" of {low} or more"
    at_most = "" if high is None else f" of {high} or less"
    return f"a whole number{at_least}{at_most}"


def _describe_float(bounds: dict[str, float]) -> str:
    if "ge" in bounds and "le" in bounds:
        return f"a number from {bounds['ge']:g} to {bounds['le']:g}"
    forms = {
        "ge": "of {:g} or more",
        "gt": "above {:g}",
        "le": "of {:g} or less",
        "lt": "below {:g}",
    }
    limits = " and ".join(forms[name].format(bound) for name, bound in bounds.items())
    return f"a number {limits}".rstrip()


def describe_wrong_value(key: Key, value: Any) -> str:
    """Returns the message about a value that a key doesn't take, with a hint if one is likely."""
    expected = describe_expected(key)
    return f"expected {expected}; received {format_value(value)}{_hint(key, value)}"


def describe_missing(key: Key) -> str:
    """Returns the message about a key that has no default and isn't given."""
    return f"missing; expected {describe_expected(key)}"


def describe_repeated(values: Sequence[Any]) -> str:
    """Returns the message about a key that is given several times, with the first five values."""
    listed = ", ".join(map(format_value, values[:5])) + (", ..." if len(values) > 5 else "")
    return f"expected once; received {len(values)} times ({listed})"


def _hint(key: Key, value: Any) -> str:
    """Returns `; did you mean ...?`, or an empty string."""
    plain = key_type(key)
    if isinstance(value, str) and allowed_values(key):
        nearest = _nearest(value, allowed_values(key))
        return f'; did you mean "{nearest}"?' if nearest else ""
    if plain is int and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"; did you mean {int(value)}?"
    if isinstance(value, str) and plain in (int, float, bool):
        try:
            number = json.loads(value)
        except (ValueError, RecursionError):
            return ""
        fits = type(number) is bool if plain is bool else type(number) in (int, float)
        return f"; did you mean {value.strip()}, without quotes?" if fits else ""
    return ""


def describe_unknown_key(key: Key, tree: Mapping[str, Any]) -> tuple[str, Key | None]:
    """Returns the message about an unknown key, and the key that was meant if that is clear.

    Args:
        key: the unknown key, in a section that exists.
        tree: the config as read from JSON, for the values that near keys have in it.
    """
    section, name = key[:-1], key[-1]
    if join_key(key) in RENAMED:
        renamed = RENAMED[join_key(key)]
        return f'unknown key; it is now called "{renamed}"', split_key(renamed)
    own = [known for known in SECTIONS[section] if not known.startswith("$")]
    same = next((known for known in own if _normalize(known) == _normalize(name)), None)
    homes = [path for path, fields in SECTIONS.items() if name in fields]
    if same is None and homes:
        owners = join_words(list(map(_describe_section, homes)), "or")
        meant = (*homes[0], name) if len(homes) == 1 else None
        return f"unknown key; it belongs to {owners}", meant
    path = split_key(name)
    if len(path) > 1 and path[-1] in SECTIONS.get(path[:-1], ()):
        return f'unknown key; write "{path[-1]}" inside "{join_key(path[:-1])}"', path
    if nearest := same or _nearest(name, own):
        meant = (*section, nearest)
        return f'unknown key; did you mean "{nearest}"{_current_value(tree, meant)}?', meant
    everywhere = {known: (*path, known) for path, fields in SECTIONS.items() for known in fields}
    if nearest := _nearest(name, list(everywhere), cutoff=0.75):
        meant = everywhere[nearest]
        return f'unknown key; did you mean "{join_key(meant)}"{_current_value(tree, meant)}?', meant
    names = join_words(list(map(quote, own)), "and")
    return f"unknown key; {_describe_section(section)} takes {names}", None


def _describe_section(section: Key) -> str:
    return quote(join_key(section)) if section else "the top level"


def _normalize(name: str) -> str:
    return name.lower().strip().replace("-", "_").replace(" ", "_")


def _nearest(name: str, names: Sequence[str], cutoff: float = 0.62) -> str | None:
    by_normalized = {_normalize(known): known for known in names}
    # a long name is near to none, and comparing it takes long
    matches = difflib.get_close_matches(_normalize(name[:60]), by_normalized, n=1, cutoff=cutoff)
    return by_normalized[matches[0]] if matches else None


def _current_value(tree: Mapping[str, Any], key: Key) -> str:
    """Returns ` (now 100)` if the tree gives the key a value that is no section."""
    if not is_given(tree, key) or key in SECTIONS:
        return ""
    return f" (now {format_value(value_or_default(tree, key))})"
