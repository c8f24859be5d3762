"""JSON as a person writes it by hand: read strictly, and told where and how it is broken.

Python's own reader keeps the last of two equal keys without a word, takes NaN for a number, and
overflows its stack on deep nesting.
"""

import json
import re
from typing import Any

MAX_DEPTH = 20
"""Levels of nesting that are read. A config has three."""

Repeat = tuple[tuple[str, ...], list[Any]]
"""Where a key is given more than once, and its values in order."""

# Possessive, so that a string of a megabyte leaves no way back for each of its characters.
_STRUCTURE = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_TOKEN = re.compile(r'"[^"\n]*"?|\'[^\'\n]*\'?|[^\W\d]\w*|[+-]?[\w.]+|.', re.DOTALL)
_LAST_WORD = re.compile(r"[-+\w.]*\Z")
_WORDS = {
    "true": "true",
    "false": "false",
    "null": "null",
    "none": "null",
    "undefined": "null",
    "nil": "null",
    "yes": "true",
    "no": "false",
}


class BrokenJson(ValueError):
    """Text that is not JSON. `line` and `column` count from 1; the message says what was expected
    there and what was found."""

    def __init__(self, text: str, position: int, message: str):
        super().__init__(message)
        self.line = text.count("\n", 0, position) + 1
        self.column = position - text.rfind("\n", 0, position)


class _Object(dict):
    """An object that remembers the keys given more than once, with all their values."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        values: dict[str, list[Any]] = {}
        for key, value in pairs:
            values.setdefault(key, []).append(value)
        self.repeats = {key: given for key, given in values.items() if len(given) > 1}


def read_json(text: str) -> tuple[Any, list[Repeat]]:
    """Reads one JSON value.

    A number beyond 64 bits becomes a float, maybe infinite, and `NaN` and `Infinity` are read as
    such, so that the place where they stand can be named by whoever knows what is expected there.

    Returns:
        The value, in which the last of several equal keys holds, and the keys that are given more
        than once.

    Raises:
        BrokenJson: the text is not JSON, or is nested more than `MAX_DEPTH` levels deep.
    """
    _refuse_depth(text)
    try:
        value = json.loads(text, object_pairs_hook=_Object, parse_int=_whole)
    except json.JSONDecodeError as error:
        position, message = _explain(text, error.pos, error.msg)
        raise BrokenJson(text, position, message) from None
    repeats: list[Repeat] = []
    return _plain(value, (), repeats), repeats


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)


def _plain(value: Any, at: tuple[str, ...], repeats: list[Repeat]) -> Any:
    """The value in Python's own types; adds what is repeated in it to `repeats`."""
    if isinstance(value, list):
        return [_plain(item, at, repeats) for item in value]
    if not isinstance(value, _Object):
        return value
    repeats.extend(((*at, key), values) for key, values in value.repeats.items())
    return {key: _plain(item, (*at, key), repeats) for key, item in value.items()}


def _refuse_depth(text: str) -> None:
    depth = 0
    for match in _STRUCTURE.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BrokenJson(
                    text,
                    match.start(),
                    f"expected at most {MAX_DEPTH} levels of nesting; found another '{match[0]}'",
                )
        elif match[0] in "]}":
            depth -= 1


def _open_bracket(text: str) -> str:
    """The innermost bracket that is open at the end of the text, or an empty string."""
    stack = []
    for match in _STRUCTURE.finditer(text):
        if match[0] in "[{":
            stack.append(match[0])
        elif match[0] in "]}" and stack:
            stack.pop()
    return stack[-1] if stack else ""


def _found(text: str, position: int) -> str:
    """The word, string or sign at a position, for a message."""
    match = _TOKEN.match(text, position)
    if match is None:
        return "the end of the text"
    token = _printable(match[0])
    return token if len(token) > 1 or token.isalnum() else f"'{token}'"


def _printable(text: str) -> str:
    shown = text if text.isprintable() else text.encode("unicode_escape").decode()
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _explain(text: str, position: int, complaint: str) -> tuple[int, str]:
    """Where the reader's complaint belongs, and its wording.

    Of the complaint only the beginning is used, which is the same in Python 3.11 to 3.13.
    """
    here, before = text[position : position + 1], text[:position].rstrip()
    closing = {"{": "'}'", "[": "']'"}.get(_open_bracket(before), "the end")
    if text.startswith(("//", "/*", "#"), position):
        return (
            position,
            "expected no comment, as JSON has none; found "
            f"{'#' if here == '#' else text[position : position + 2]}",
        )
    if complaint.startswith("Illegal trailing comma") or (
        before.endswith(",") and here in ("}", "]")
    ):
        return position if here == "," else len(
            before
        ) - 1, f"expected no comma before {closing}; found one"
    if complaint.startswith(("Unterminated string", "Invalid")):
        return _explain_string(text, position, complaint)
    if complaint.startswith("Expecting value"):
        return position, _explain_value(text, position)
    if complaint.startswith("Expecting ','"):
        start = position - len(_LAST_WORD.search(text[max(0, position - 40) : position])[0])
        if start < position and re.match(r"[\w.]", here):
            return start, _malformed_number(text, start)
        missing = "; is a comma missing before it?" if re.match(r'["\w\[{-]', here) else ""
        return position, f"expected ',' or {closing}; found {_found(text, position)}{missing}"
    if complaint.startswith("Expecting ':'"):
        wanted = "':' after the key"
    elif complaint.startswith("Extra data"):
        wanted = "the end of the text"
    else:
        wanted = (
            "a key in double quotes or '}'" if before.endswith("{") else "a key in double quotes"
        )
    return position, f"expected {wanted}; found {_found(text, position)}"


def _explain_string(text: str, position: int, complaint: str) -> tuple[int, str]:
    if complaint.startswith("Unterminated"):
        return position, "expected '\"' at the end of this string; found the end of the text"
    if complaint.startswith("Invalid \\"):
        start = text.rfind("\\", 0, position + 1)
        return (
            start,
            r"expected \\ or / in place of a single backslash; found "
            f"{_printable(text[start : start + 2])}",
        )
    if text[position] in "\r\n":
        return position, "expected '\"' at the end of this string; found the end of the line"
    return (
        position,
        rf"expected \t, \n or \uXXXX for a control character; found {_found(text, position)}",
    )


def _explain_value(text: str, position: int) -> str:
    here, found = text[position : position + 1], _found(text, position)
    if re.match(r"[-+.]", here):
        return _malformed_number(text, position)
    if found.lower() in _WORDS:
        return f"expected {_WORDS[found.lower()]} as JSON writes it; found {found}"
    return f"expected a value; found {found}" + (
        "; strings take double quotes" if re.match(r"[\w']", here) else ""
    )


def _malformed_number(text: str, position: int) -> str:
    return (
        "expected a number as JSON writes it, such as 5, 0.5 or 1e-4; found "
        f"{_found(text, position)}"
    )
