"""Differences between configs: of a run resumed with another one, and of a run and its recipe."""

import json
from typing import Any

from byol_tf.config.fields import SECTIONS, Key, key_type
from byol_tf.config.loading import packaged_recipe, recipes, resolved_json
from byol_tf.config.schema import Config

Difference = tuple[str, str, str]
"""(dotted key, value in the first config, value in the second); values are JSON, or `absent`."""

_IRRELEVANT = ("about", "$schema", "run", "monitor")
"""Keys at the top level that don't change what is learned."""
SAME_STEPS = {
    "data.cache": "the same pixels, cached or read again",
    "data.max_unreadable_fraction": "a limit on what is replaced anyway",
    "devices.steps_per_execution": "the same steps in the same order, however many in one call",
    "devices.tpu": "a name",
    "devices.start_timeout_minutes": "a waiting time",
    "devices.worker_timeout_minutes": "a waiting time",
    "training.rematerialize": "activations are recomputed from the same numbers",
}
"""Keys that are listed where runs are compared and with which a run is resumed all the same, each
with the reason."""
LOCATIONS = ("data.root", "data.archive", "objective.teacher")
"""Paths of images and teacher. They may change before a run is resumed: its checkpoint has the
fingerprints of what they lead to."""


def flat(tree: dict[str, Any]) -> dict[str, str]:
    """Returns dotted key -> value as JSON, of every relevant key of a resolved config."""
    return _flatten({key: value for key, value in tree.items() if key not in _IRRELEVANT}, "")


def _flatten(tree: dict[str, Any], prefix: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            values |= _flatten(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = json.dumps(value)
    return values


def differences(saved: dict[str, Any], config: dict[str, Any]) -> list[Difference]:
    """Returns every relevant key in which two resolved configs differ, sorted."""
    old, new = flat(saved), flat(config)
    return [
        (key, old.get(key, "absent"), new.get(key, "absent"))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]


def differences_of_runs(saved: dict[str, Any], config: dict[str, Any]) -> list[Difference]:
    """Returns those `differences` with which the second config is another run."""
    return [each for each in differences(saved, config) if each[0] not in SAME_STEPS]


def listed(differing: list[Difference]) -> list[str]:
    """Returns a line of text for each difference between a saved config and the current one."""
    return [f"  {key}: {old} there, {new} now" for key, old, new in differing]


def recipe_differences(config: Config) -> tuple[str, list[Difference]]:
    """Compares a config with the packaged recipe of its name, or else with the defaults.

    Returns:
        The name of what it is compared with, and the differences, those of `config` second.
    """
    tree = json.loads(resolved_json(config))
    if config.name in recipes():
        recipe = json.loads(resolved_json(packaged_recipe(config.name)))
        return f"configs/{config.name}.json", differences(recipe, tree)
    return "the defaults", differences(defaults_for(config), tree)


def defaults_for(config: Config) -> dict[str, Any]:
    """Returns a resolved config, as JSON types, of this one's required values and all defaults.

    It needn't be valid: the defaults of the sections may conflict with the required values.
    """
    tree = config.model_dump(mode="json", by_alias=True)
    defaults = dict(tree)
    for name in SECTIONS[()]:
        if (name,) in SECTIONS and tree[name] is not None:
            section = key_type((name,)).model_validate(_required(tree[name], (name,)))
            defaults[name] = section.model_dump(mode="json", by_alias=True)
    return defaults


def _required(tree: dict[str, Any], section: Key) -> dict[str, Any]:
    """Returns the values of a section that have no default, those of inner sections included."""
    required = {}
    for name, info in SECTIONS[section].items():
        if (*section, name) in SECTIONS:
            if tree[name] is not None and (inner := _required(tree[name], (*section, name))):
                required[name] = inner
        elif info.is_required():
            required[name] = tree[name]
    return required
