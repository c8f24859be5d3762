"""Changes of a config from the command line, `--set KEY=VALUE`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from byol_tf.config.fields import SECTIONS, Key, accepts_null, key_type, split_key
from byol_tf.config.json_reader import MAX_DEPTH, RepeatedKey, read_json
from byol_tf.config.messages import join_key
from byol_tf.errors import ConfigError, escape


@dataclass(frozen=True)
class Override:
    """One change of a config.

    Attributes:
        position: its index among the overrides of the command.
        text: `KEY=VALUE` as it was given.
        key: the key.
        value: its value.
        repeated: the keys that the value itself gives more than once, as paths from the top level.
    """

    position: int
    text: str
    key: Key
    value: Any
    repeated: tuple[RepeatedKey, ...] = ()

    @property
    def label(self) -> str:
        """The name of the override in messages."""
        return f"--set {escape(self.text)}"

    @property
    def misplaced_text(self) -> str:
        """The message about an override of a key inside a key that is no section."""
        return f'{self.label}: unknown key; "{join_key(self.key[:-1])}" is no section'


def parse_override(position: int, text: str) -> Override:
    """Reads `KEY=VALUE`.

    The value is JSON; it is a string if it isn't JSON or if the key takes a string, as a folder may
    be called 2024.

    Raises:
        ValueError: if there is no `=`, or a part of the key is empty, or it has more than
            `MAX_DEPTH` parts; the message is complete.
    """
    name, equals, given = text.partition("=")
    key = tuple(part.strip() for part in split_key(name))
    if not equals or not all(key) or len(key) > MAX_DEPTH:
        raise ValueError(f"--set {escape(text)}: expected KEY=VALUE, for example training.epochs=5")
    try:
        value, repeated = read_json(given)
    except (ValueError, RecursionError):
        return Override(position, text, key, given)
    if key[-1] in SECTIONS.get(key[:-1], ()) and key_type(key) is str:
        is_null = value is None and accepts_null(key)
        return Override(position, text, key, value if isinstance(value, str) or is_null else given)
    paths = tuple(((*key, *path), values) for path, values in repeated)
    return Override(position, text, key, value, paths)


def check_run_overrides(overrides: Sequence[str], seed: bool = False) -> None:
    """Checks that overrides of a run's config leave its training as it was.

    They may change which images are read, and at which size the encoder sees them.

    Args:
        overrides: `KEY=VALUE` each.
        seed: whether `seed`, by which a sample is drawn, may change too.

    Raises:
        ConfigError: for another key.
    """
    allowed = ("data.", "encoder.inference_size=", *(("seed=",) if seed else ()))
    name = ", seed" if seed else ""
    for override in overrides:
        if not override.startswith(allowed):
            raise ConfigError(
                f"--set {override}: expected a key of data{name} or encoder.inference_size; the "
                "other keys of a run's config determined its encoder"
            )


class Origins:
    """The override that each key's value comes from."""

    def __init__(self) -> None:
        self._overrides: dict[Key, Override] = {}

    def set(self, key: Key, override: Override) -> None:
        """Records that the value of this key, with all keys within, comes from this override."""
        self._overrides = {
            other: owner for other, owner in self._overrides.items() if other[: len(key)] != key
        }
        self._overrides[key] = override

    def find(self, key: Key) -> Override | None:
        """Returns the override that gave this key or a section around it; None for the file."""
        for end in range(len(key), 0, -1):
            if key[:end] in self._overrides:
                return self._overrides[key[:end]]
        return None


def apply_overrides(
    tree: dict[str, Any], overrides: Sequence[Override]
) -> tuple[dict[str, Any], Origins, list[Override]]:
    """Applies overrides in their order; sections that are absent or null are created.

    Returns:
        A changed copy of the tree, the origins of its values, and the overrides that couldn't be
        applied, as a part of their key isn't an object.
    """
    tree, origins, misplaced = dict(tree), Origins(), []
    for override in overrides:
        section = tree
        for depth, name in enumerate(override.key[:-1], start=1):
            if section.get(name) is None:
                origins.set(override.key[:depth], override)
                section[name] = {}
            elif not isinstance(section[name], dict):
                misplaced.append(override)
                break
            section[name] = dict(section[name])
            section = section[name]
        else:
            section[override.key[-1]] = override.value
            origins.set(override.key, override)
    return tree, origins, misplaced
