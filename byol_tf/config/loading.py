"""Loading of configs: a JSON file and overrides in, a valid `Config` or one complete error out."""

import difflib
import json
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byol_tf.config.fields import SECTIONS
from byol_tf.config.json_reader import MAX_DEPTH, RepeatedKey, read_json
from byol_tf.config.messages import format_value, join_key
from byol_tf.config.overrides import Origins, Override, apply_overrides, parse_override
from byol_tf.config.schema import Config
from byol_tf.config.validation import ConfigIssue, validate
from byol_tf.constants import ENCODER_KEYS_OF_ANY_NETWORK, IMAGENET, PYTHON_MODEL
from byol_tf.errors import ConfigError, escape
from pipelines.urls import is_url

DEFAULT_RECIPE = "demo"
MAX_BYTES = 1_000_000
"""Size of the largest file that is read: a larger one is no config but, say, a data set."""
# Found by its path, in a checkout as in an installation: importing `configs` might find another
# package of that common name.
_RECIPES = Path(__file__).resolve().parents[2] / "configs"


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Reads, changes and validates a config.

    Example:
        >>> from byol_tf.config.loading import load_config
        >>> config = load_config("stl10", ["training.epochs=5", "tau.base=0.99"])
        >>> config.training.epochs
        5

    Args:
        path: a JSON file. None is the packaged `configs/demo.json`; a path that doesn't exist may
            name a packaged recipe: `configs/stl10.json`, `stl10.json` or `stl10`.
        overrides: changes `KEY=VALUE` in their order, such as `training.epochs=5`. The value is
            read as JSON, else as a string.

    Returns:
        The config, with the default of every key that isn't given.

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
        tree, repeated = read_object(label, file)
    except ConfigError as error:
        raise ConfigError(str(error), *(line for _, line in lines)) from None
    tree, origins, misplaced = apply_overrides(tree, changes)
    # a repeated key counts only if its value wasn't overridden later
    repeated = [each for each in repeated if origins.find(each[0]) is None]
    for change in changes:
        repeated += [each for each in change.repeated if origins.find(each[0]) is change]
    config, issues = validate(tree, repeated)
    lines += [_locate_issue(label, issue, origins) for issue in issues]
    # else the unknown section of the key is an issue already
    lines += [
        (change.position, change.misplaced_text)
        for change in misplaced
        if change.key[:-1] not in SECTIONS
    ]
    if config is None or lines:
        raise ConfigError(*(line for _, line in sorted(lines, key=lambda pair: pair[0])))
    return config


def resolved_json(config: Config) -> str:
    """Returns a config as JSON text with every key, in the order of `schema.py`.

    As a file it loads to an equal config.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def absolute_paths(config: Config) -> Config:
    """Returns a config whose images and encoders are found from any working directory.

    A run is saved and compared in this form: the same words name other images elsewhere.
    """

    def absolute(path: str | None) -> str | None:
        return path if path is None or path == IMAGENET or is_url(path) else os.path.abspath(path)

    data, encoder, objective = config.data, config.encoder, config.objective
    # The name of a data set of Hugging Face's hub is no path.
    is_name = data.source == "huggingface" and not os.path.exists(data.root or "")
    root = data.root if is_name else absolute(data.root)
    paths = {"root": root, "archive": absolute(data.archive)}
    return config.model_copy(
        update={
            "data": data.model_copy(update=paths),
            "encoder": encoder.model_copy(update={"weights": absolute(encoder.weights)}),
            "objective": objective.model_copy(update={"teacher": absolute(objective.teacher)}),
        }
    )


def given_config(config: Config, encoder: bool, images: bool) -> Config:
    """Returns the config of a run whose encoder or images are given in Python.

    Raises:
        ConfigError: if the rest of the config doesn't suit them.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    if encoder:
        kept = config.encoder.model_dump(include=ENCODER_KEYS_OF_ANY_NETWORK)
        tree["encoder"] = {"name": PYTHON_MODEL} | kept
    if images:
        keys = ("pretrain", "pretrain_images", "image_size", "channels", "depth", "cache")
        tree["data"] = {"source": "arrays"} | {key: tree["data"][key] for key in keys}
    given, issues = validate(tree)
    if given is None:
        raise ConfigError(*(f"{join_key(issue.key)}: {issue.text}" for issue in issues))
    return given


def recipes() -> list[str]:
    """Returns the names of the packaged recipes, such as `stl10`."""
    return sorted(file.stem for file in _RECIPES.glob("*.json") if file.name != "schema.json")


def packaged_recipe(name: str) -> Config:
    """Loads one of `recipes()`, even if the current folder has a file of its name.

    Raises:
        ConfigError: if the installed file is broken.
    """
    return load_config(_RECIPES / f"{name}.json")


def _locate_issue(label: str, issue: ConfigIssue, origins: Origins) -> tuple[int, str]:
    """Returns the position of an issue's override, -1 for the file, and the complete message."""
    origin = origins.find(issue.key)
    if origin is None:  # the key may be right in the file, and conflict with an override
        related = [owner for owner in map(origins.find, issue.related) if owner is not None]
        origin = max(related, key=lambda owner: owner.position, default=None)
    name = f"{join_key(issue.key)}: " if issue.key else ""
    if origin is None:
        return -1, f"{label}: {name}{issue.text}"
    return origin.position, f"{origin.label}: {'' if issue.key == origin.key else name}{issue.text}"


def _locate(path: str | Path | None) -> tuple[str, Path]:
    """Finds a config's file, or else the packaged recipe of that name.

    Returns:
        The name of the file in messages, and the file.

    Raises:
        ConfigError: if there is no such file, with the nearest name.
    """
    if path is None:
        return f"configs/{DEFAULT_RECIPE}.json", _RECIPES / f"{DEFAULT_RECIPE}.json"
    label, file = escape(str(path), 200), Path(os.path.expanduser(path))
    try:
        if file.is_file():
            return label, file
        in_recipes = str(file.parent) in (".", "configs") and file.suffix in ("", ".json")
        if in_recipes and file.stem in recipes():
            return f"configs/{file.stem}.json", _RECIPES / f"{file.stem}.json"
        if file.exists():
            received = "a folder" if file.is_dir() else "no regular file"
            raise ConfigError(f"{label}: expected a JSON file; received {received}")
        neighbours = map(str, file.parent.glob("*.json")) if file.parent.is_dir() else ()
        known = [*neighbours, *(f"configs/{name}.json" for name in recipes())]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{label}: can't be read: {_reason(error)}") from None
    by_stem = {Path(name).stem: name for name in reversed(known)}
    if nearest := difflib.get_close_matches(file.stem, by_stem, n=1):
        hint = f'did you mean "{escape(by_stem[nearest[0]], 200)}"?'
    else:
        hint = f"the packaged recipes are {', '.join(recipes())}"
    raise ConfigError(f"{label}: no such file; {hint}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def read_object(label: str, file: Path) -> tuple[dict[str, Any], list[RepeatedKey]]:
    """Reads a JSON file that holds an object.

    Args:
        label: the name of the file in messages.
        file: the file.

    Returns:
        The object, and the keys that it gives more than once.

    Raises:
        ConfigError: if the file can't be read, is too large, or is no JSON object.
    """
    text = _read_text(label, file)
    if not text.strip():
        raise ConfigError(f"{label}: expected an object; received an empty file")
    try:
        value, repeated = read_json(text)
    except json.JSONDecodeError as error:
        mistake = error.msg[:1].lower() + error.msg[1:]
        position = f"{error.lineno}:{error.colno}"
        raise ConfigError(f"{label}:{position}: invalid JSON: {mistake}") from None
    except RecursionError:
        message = f"{label}: expected at most {MAX_DEPTH} levels of nesting; received more"
        raise ConfigError(message) from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"{label}: expected an object at the top level; received {format_value(value)}"
        )
    return value, repeated


def _read_text(label: str, file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        size = file.stat().st_size
    except OSError as error:
        raise ConfigError(f"{label}: can't be read: {_reason(error)}") from None
    if len(content) > MAX_BYTES:
        limit = f"expected a file of at most {MAX_BYTES // 1000} kB"
        raise ConfigError(f"{label}: {limit}; received {size // 1000} kB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        byte = f"byte 0x{error.object[error.start]:02x}"
        message = f"{label}:{line}:{column}: expected text in UTF-8; received {byte}"
        raise ConfigError(message) from None
