"""Changes to a config from the command line: `training.epochs=5`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byol_tf.config_errors import printable
from byol_tf.config_keys import SECTIONS, Key, kind, takes_null
from byol_tf.config_text import BrokenJson, Repeat, read_json


@dataclass(frozen=True)
class Override:
    """One change: its place among the changes, the text it was given as, the key, its value, and what is repeated within the value."""

    position: int
    text: str
    key: Key
    value: Any
    repeats: tuple[Repeat, ...] = ()

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"--set {printable(self.text)}"


def parse_override(position: int, text: str) -> Override:
    """Reads `KEY=VALUE`: the value is JSON, and a string where it is no JSON or where the key takes a string.

    Raises `ValueError` with a complete message if there is no `=`, or a part of the key is empty.
    """
    name, equals, given = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise ValueError(f"--set {printable(text)}: expected KEY=VALUE, for example training.epochs=5")
    try:
        value, repeats = read_json(given)
    except BrokenJson:
        return Override(position, text, key, given)
    if key[-1] in SECTIONS.get(key[:-1], ()) and kind(key) is str and not (isinstance(value, str) or (value is None and takes_null(key))):
        return Override(position, text, key, given)  # a folder may be called 2024
    return Override(position, text, key, value, tuple(((*key, *inner), values) for inner, values in repeats))


class Origins:
    """Which override a key's value comes from."""

    def __init__(self) -> None:
        self._owners: dict[Key, Override] = {}

    def own(self, key: Key, override: Override) -> None:
        """The value of this key, and all within it, now comes from this override."""
        self._owners = {other: owner for other, owner in self._owners.items() if other[: len(key)] != key}
        self._owners[key] = override

    def of(self, key: Key) -> Override | None:
        """The override that gave this key or the section it lies in; None for the file."""
        return next((self._owners[key[:end]] for end in range(len(key), 0, -1) if key[:end] in self._owners), None)


def apply_overrides(tree: dict[str, Any], overrides: Sequence[Override]) -> tuple[dict[str, Any], Origins, list[Override]]:
    """Applies overrides in their order; sections that are absent or null are made.

    Returns:
        A changed copy of the tree, where its values come from, and the overrides that reach into what is no section.
    """
    tree, origins, unplaced = dict(tree), Origins(), []
    for override in overrides:
        section = tree
        for depth, part in enumerate(override.key[:-1], start=1):
            if section.get(part) is None:
                origins.own(override.key[:depth], override)
                section[part] = {}
            elif not isinstance(section[part], dict):
                unplaced.append(override)
                break
            section[part] = dict(section[part])
            section = section[part]
        else:
            section[override.key[-1]] = override.value
            origins.own(override.key, override)
    return tree, origins, unplaced
