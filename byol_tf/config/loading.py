"""A JSON file and changes from the command line in, a checked `Config` or one complete
`ConfigError` out."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from byol_tf.config.fields import (
    SECTIONS,
    Key,
    dotted,
    json_schema,
    kind,
    printable,
    shown,
    takes_null,
)
from byol_tf.config.json_reader import BrokenJson, Repeat, read_json
from byol_tf.config.messages import ConfigIssue, validate
from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError


@dataclass(frozen=True)
class Override:
    """One change: its place among the changes, the text it was given as, the key, its value, and
    what is repeated within the value."""

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
    """Reads `KEY=VALUE`: the value is JSON, and a string where it is no JSON or where the key takes
    a string.

    Raises `ValueError` with a complete message if there is no `=`, or a part of the key is empty.
    """
    name, equals, given = text.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise ValueError(
            f"--set {printable(text)}: expected KEY=VALUE, for example training.epochs=5"
        )
    try:
        value, repeats = read_json(given)
    except BrokenJson:
        return Override(position, text, key, given)
    if (
        key[-1] in SECTIONS.get(key[:-1], ())
        and kind(key) is str
        and not (isinstance(value, str) or (value is None and takes_null(key)))
    ):
        return Override(position, text, key, given)  # a folder may be called 2024
    return Override(
        position, text, key, value, tuple(((*key, *inner), values) for inner, values in repeats)
    )


class Origins:
    """Which override a key's value comes from."""

    def __init__(self) -> None:
        self._owners: dict[Key, Override] = {}

    def own(self, key: Key, override: Override) -> None:
        """The value of this key, and all within it, now comes from this override."""
        self._owners = {
            other: owner for other, owner in self._owners.items() if other[: len(key)] != key
        }
        self._owners[key] = override

    def of(self, key: Key) -> Override | None:
        """The override that gave this key or the section it lies in; None for the file."""
        return next(
            (
                self._owners[key[:end]]
                for end in range(len(key), 0, -1)
                if key[:end] in self._owners
            ),
            None,
        )


def apply_overrides(
    tree: dict[str, Any], overrides: Sequence[Override]
) -> tuple[dict[str, Any], Origins, list[Override]]:
    """Applies overrides in their order; sections that are absent or null are made.

    Returns:
        A changed copy of the tree, where its values come from, and the overrides that reach into
        what is no section.
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


__all__ = ["ConfigError", "load_config", "packaged_recipe", "recipes", "resolved_json"]

DEFAULT_RECIPE = "demo"
MAX_BYTES = 1_000_000
"""A larger file is no config but, say, a data set that was named by mistake."""
# Beside this package, in a checkout as in an installation. Importing `configs` might find another
# package of that frequent name.
_RECIPES = Path(__file__).resolve().parents[2] / "configs"


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads, changes and checks a config, before TensorFlow is imported.

    Args:
        path: a JSON file. None is the packaged `configs/demo.json`; a path that doesn't exist may
            name a packaged recipe: `configs/stl10.json`, `stl10.json` or `stl10`.
        overrides: changes `KEY=VALUE` in their order, such as `training.epochs=5`. The value is
            read as JSON, else as a string.

    Raises:
        ConfigError: with every mistake, one a line: those of the file in the file's order, then
            those of each override.
    """
    label, file = _locate(path)
    changes: list[Override] = []
    lines: list[tuple[int, str]] = []  # (position of the override, or -1 for the file; message)
    for position, text in enumerate(overrides):
        try:
            changes.append(parse_override(position, text))
        except ValueError as error:
            lines.append((position, str(error)))
    try:
        tree, repeats = read_object(label, file)
    except ConfigError as error:
        raise ConfigError([str(error), *(line for _, line in lines)]) from None
    tree, origins, unplaced = apply_overrides(tree, changes)
    given = [(None, repeat) for repeat in repeats] + [
        (change, repeat) for change in changes for repeat in change.repeats
    ]
    config, found = validate(
        tree, [repeat for owner, repeat in given if origins.of(repeat[0]) is owner]
    )
    lines += [_placed(label, mistake, origins) for mistake in found]
    lines += [
        (change.position, _misplaced(change))
        for change in unplaced
        if change.key[:-1] not in SECTIONS
    ]
    if config is None or lines:
        raise ConfigError([line for _, line in sorted(lines, key=lambda pair: pair[0])])
    return config


def schema_json() -> str:
    """The JSON schema of a config, as `configs/schema.json` holds it for editors to complete and
    check keys with."""
    return json_schema(Config)


def resolved_json(config: Config) -> str:
    """Every key with its value, in the order of `schema.py`. As a file it loads to an equal
    config."""
    return (
        json.dumps(config.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False)
        + "\n"
    )


def recipes() -> list[str]:
    """The names of the packaged recipes, such as `stl10`."""
    return sorted(file.stem for file in _RECIPES.glob("*.json") if file.name != "schema.json")


def packaged_recipe(name: str) -> Config:
    """One of `recipes()`, whatever file of its name the current folder has. `ConfigError` if it was
    broken where it is installed."""
    return load_config(_RECIPES / f"{name}.json")


def _placed(label: str, mistake: ConfigIssue, origins: Origins) -> tuple[int, str]:
    """A mistake with the file or override that it is in, and where that comes in the order of
    messages."""
    origin = origins.of(mistake.key)
    if origin is None:  # the key may be right in the file, and clash with what an override says
        owners = [owner for owner in map(origins.of, mistake.others) if owner is not None]
        origin = max(owners, key=lambda owner: owner.position, default=None)
    if origin is None:
        return -1, f"{label}: {dotted(mistake.key)}: {mistake.text}"
    place = "" if mistake.key == origin.key else f"{dotted(mistake.key)}: "
    return origin.position, f"{origin.label}: {place}{mistake.text}"


def _misplaced(change: Override) -> str:
    return f'{change.label}: unknown key; "{dotted(change.key[:-1])}" is no section'


def _locate(path: str | Path | None) -> tuple[str, Path]:
    """How messages name the file, and the file. A file that exists goes before a packaged recipe of
    its name. Raises `ConfigError`."""
    if path is None:
        return f"configs/{DEFAULT_RECIPE}.json", _RECIPES / f"{DEFAULT_RECIPE}.json"
    label, file = printable(str(path), 200), Path(path)
    try:
        if file.is_file():
            return label, file
        if (
            str(file.parent) in (".", "configs")
            and file.suffix in ("", ".json")
            and file.stem in recipes()
        ):
            return f"configs/{file.stem}.json", _RECIPES / f"{file.stem}.json"
        if file.exists():
            raise ConfigError(
                [
                    f"{label}: expected a JSON file; received "
                    f"{'a folder' if file.is_dir() else 'no regular file'}"
                ]
            )
        neighbours = (
            [str(other) for other in file.parent.glob("*.json")] if file.parent.is_dir() else []
        )
    except (OSError, ValueError) as error:
        raise ConfigError([f"{label}: can't be read: {_reason(error)}"]) from None
    known = [*neighbours, *(f"configs/{name}.json" for name in recipes())]
    stems = {Path(name).stem: name for name in reversed(known)}
    nearest = difflib.get_close_matches(file.stem, stems, n=1)
    hint = (
        f'did you mean "{printable(stems[nearest[0]], 200)}"?'
        if nearest
        else f"the packaged recipes are {', '.join(recipes())}"
    )
    raise ConfigError([f"{label}: no such file; {hint}"])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def read_object(label: str, file: Path) -> tuple[dict[str, Any], list[Repeat]]:
    """The object that a JSON file holds, and the keys that it gives more than once. Raises
    `ConfigError`.

    `label` is how messages name the file.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{label}: can't be read: {_reason(error)}"]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            [
                f"{label}: expected a file of at most {MAX_BYTES // 1000} kB; received "
                f"{file.stat().st_size // 1000} kB"
            ]
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ConfigError(
            [
                f"{label}:{line}:{column}: expected text in UTF-8; found byte "
                f"0x{error.object[error.start]:02x}"
            ]
        ) from None
    if not text.strip():
        raise ConfigError([f"{label}: expected an object; received an empty file"])
    try:
        value, repeats = read_json(text)
    except BrokenJson as error:
        raise ConfigError([f"{label}:{error.line}:{error.column}: {error}"]) from None
    if not isinstance(value, dict):
        raise ConfigError(
            [f"{label}: expected an object at the top level; received {shown(value)}"]
        )
    return value, repeats
