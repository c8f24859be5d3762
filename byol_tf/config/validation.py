"""Validation of a config as read from JSON: every mistake at once, each with its key."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from byol_tf.config.checks import conflicts, with_channel_defaults
from byol_tf.config.fields import SECTIONS, Key, is_given, split_key, value_or_default
from byol_tf.config.json_reader import RepeatedKey
from byol_tf.config.messages import (
    describe_missing,
    describe_repeated,
    describe_unknown_key,
    describe_wrong_value,
    format_value,
)
from byol_tf.config.schema import Config

MAX_ISSUES = 100
"""Most mistakes that are described; the rest is counted. A file with more of them is no config, and
the search for the known key that is nearest to an unknown one takes time."""


@dataclass(frozen=True)
class ConfigIssue:
    """One mistake in a config.

    Attributes:
        key: the key that is wrong.
        text: the message, without the key.
        related: the other keys that a check between keys has compared.
    """

    key: Key
    text: str
    related: tuple[Key, ...] = ()


def validate(
    tree: dict[str, Any], repeated: Sequence[RepeatedKey] = ()
) -> tuple[Config | None, list[ConfigIssue]]:
    """Checks a config as read from JSON.

    Args:
        tree: the config.
        repeated: the keys that are given more than once, and their values.

    Returns:
        The config and no issues, or None and the issues in the order of the tree's keys, those of
        missing keys at the end of their section. Of more than `MAX_ISSUES` the last one, with the
        key (), says how many more there are.
    """
    issues = [ConfigIssue(key, describe_repeated(values)) for key, values in repeated]
    undescribed = 0
    config = None
    if unencodable := list(_unencodable(tree, ())):
        issues += unencodable  # alone, as pydantic gives up at a name that isn't Unicode
    else:
        try:
            config = Config.model_validate(tree)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False, include_context=False)
            issues += _describe_errors(tree, errors, {key for key, _ in repeated})
            undescribed = max(0, len(errors) - MAX_ISSUES)
    if not issues:
        return config, []
    order = {key: index for index, key in enumerate(_keys_in_order(tree, ()))}
    issues.sort(key=lambda issue: order.get(issue.key, len(order)))
    undescribed += max(0, len(issues) - MAX_ISSUES)
    if undescribed:
        issues = [*issues[:MAX_ISSUES], ConfigIssue((), f"{undescribed:,} more mistakes")]
    return None, issues


def _unencodable(tree: dict[str, Any], path: Key) -> Iterator[ConfigIssue]:
    r"""Finds lone surrogates such as "\ud800", which JSON can express and no file can hold.

    NUL characters are found too, which can be in no path. Python reads the name of a folder that
    isn't UTF-8 as a string with surrogates from U+DC80 to U+DCFF.
    """
    for name, value in tree.items():
        for text in (name, value):
            if isinstance(text, str) and "\0" in text:
                message = f"expected text without NUL characters; received {format_value(text)}"
            elif isinstance(text, str) and re.search("[\ud800-\udfff]", text):
                message = f"expected Unicode text; received {format_value(text)}"
                if re.search("[\udc80-\udcff]", text):
                    message += "; a folder with such a name can be named by a link (ln -s)"
            else:
                continue
            yield ConfigIssue((*path, name), message)
            break
        else:
            if isinstance(value, dict):
                yield from _unencodable(value, (*path, name))


def _describe_errors(
    tree: dict[str, Any], errors: Sequence[Any], repeated: set[Key]
) -> list[ConfigIssue]:
    """Returns issues for pydantic's errors, and for conflicts between valid keys."""
    unknown = {
        key: describe_unknown_key(key, tree)
        for key, error in ((_key(error), error) for error in errors[:MAX_ISSUES])
        if error["type"] == "extra_forbidden"
    }
    issues = [ConfigIssue(key, text) for key, (text, _) in unknown.items()]
    misspelt = {meant for _, meant in unknown.values() if meant and not is_given(tree, meant)}
    described = set(unknown)
    for error in errors[:MAX_ISSUES]:
        key = _key(error)
        # () stands for the conflicts, which follow; one message is enough for a list's numbers
        if not key or key in described:
            continue
        described.add(key)
        if error["type"] != "missing":
            issues.append(ConfigIssue(key, describe_wrong_value(key, value_or_default(tree, key))))
        elif key not in misspelt:
            issues.append(ConfigIssue(key, describe_missing(key)))
    invalid = {key for key in map(_key, errors) if key} | misspelt | repeated

    def is_valid(name: str) -> bool:
        key = split_key(name)
        return not any(key[:end] in invalid for end in range(1, len(key) + 1))

    filled = with_channel_defaults(tree)
    for names, text in conflicts(lambda name: value_or_default(filled, split_key(name)), is_valid):
        first, *others = map(split_key, names)
        issues.append(ConfigIssue(first, text, tuple(others)))
    return issues


def _key(error: Any) -> Key:
    """Returns the key that pydantic's error is about, without positions in a list."""
    path = error["loc"]
    end = next((index for index, part in enumerate(path) if isinstance(part, int)), len(path))
    return tuple(path[:end])


def _keys_in_order(tree: dict[str, Any], path: Key) -> Iterator[Key]:
    """Yields a section's keys as the tree gives them, then the missing ones as documented."""
    for name, value in tree.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from _keys_in_order(value, (*path, name))
    for name in SECTIONS.get(path, ()):
        if name not in tree:
            yield (*path, name)
            yield from _keys_in_order({}, (*path, name))
