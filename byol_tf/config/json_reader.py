"""A strict JSON reader, which reports the keys that an object holds more than once."""

import json
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 100
"""Levels of nesting that are read: a config has three, and a few hundred may exceed Python's stack
where the value is validated or printed."""

RepeatedKey = tuple[tuple[str, ...], list[Any]]
"""Path of a key that is given more than once, and its values in order."""


class _Object(dict[str, Any]):
    """An object that remembers the keys given more than once, with all their values."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.repeated: dict[str, list[Any]] = {}
        if len(self) < len(pairs):
            values: dict[str, list[Any]] = {}
            for key, value in pairs:
                values.setdefault(key, []).append(value)
            self.repeated = {key: given for key, given in values.items() if len(given) > 1}


def read_json(text: str) -> tuple[Any, list[RepeatedKey]]:
    """Reads one JSON value.

    A number beyond 64 bits becomes a float, which may be infinite, and `NaN` and `Infinity` are
    read as such, so that the validation can name the key that holds one.

    Returns:
        The value, in which the last of several equal keys wins, and the keys that are given more
        than once.

    Raises:
        json.JSONDecodeError: if the text isn't JSON.
        RecursionError: if it is nested more than `MAX_DEPTH` levels deep.
    """
    value = json.loads(text, object_pairs_hook=_Object, parse_int=_parse_int)
    return value, list(_repeated_keys(value, (), 1))


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) < 19 else float(digits)


def _repeated_keys(value: Any, path: tuple[str, ...], depth: int) -> Iterator[RepeatedKey]:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, _Object):
        for key, values in value.repeated.items():
            yield (*path, key), values
        for key, item in value.items():
            if isinstance(item, dict | list):
                yield from _repeated_keys(item, (*path, key), depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict | list):
                yield from _repeated_keys(item, path, depth + 1)
