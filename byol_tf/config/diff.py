"""In which keys two configs differ. Needs no TensorFlow."""

import json

from byol_tf.config.fields import SECTIONS, kind
from byol_tf.config.loading import packaged_recipe, recipes, resolved_json
from byol_tf.config.schema import Config

_DOES_NOT_MATTER = ("about", "$schema", "run", "monitor")
"""Keys that change nothing of what is learned."""
_SAME_STEPS = {
    "data.cache": "pixels are the files', held or read again",
    "devices.steps_per_execution": "the same steps one after the other, however many before Python "
    "is "
    "asked",
    "devices.tpu": "a name",
    "training.rematerialize": "what the backward pass needs is computed again from the same "
    "numbers",
}
"""Keys that are listed where runs are compared, and with which a run goes on all the same, each
with the reason."""
SAME_IMAGES = ("data.root", "data.archive")
"""Where the images are: with the same images a run goes on, and its checkpoint has their
fingerprint."""


def flat(tree: dict) -> dict[str, str]:
    """Dotted key -> value as JSON, of every key of a resolved config that matters for what is
    learned."""
    return _flatten({key: value for key, value in tree.items() if key not in _DOES_NOT_MATTER})


def differences(saved: dict, config: dict) -> list[tuple[str, str, str]]:
    """(dotted key, value there, value now) of every key that matters and differs."""
    there, now = flat(saved), flat(config)
    keys = sorted(set(there) | set(now))
    return [
        (key, there.get(key, "absent"), now.get(key, "absent"))
        for key in keys
        if there.get(key) != now.get(key)
    ]


def differences_of_runs(saved: dict, config: dict) -> list[tuple[str, str, str]]:
    """Those `differences` that make it another run."""
    return [each for each in differences(saved, config) if each[0] not in _SAME_STEPS]


def listed(differing: list[tuple[str, str, str]]) -> list[str]:
    """A line for people for each."""
    return [f"  {key}: {was} there, {now} now" for key, was, now in differing]


def _flatten(tree: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in tree.items():
        found |= (
            _flatten(value, f"{prefix}{key}.")
            if isinstance(value, dict)
            else {f"{prefix}{key}": json.dumps(value)}
        )
    return found


def recipe_differences(config: Config) -> tuple[str, list[tuple[str, str, str]]]:
    """What a config is compared with, in words, and (dotted key, value there, value here) of what
    differs.

    The recipe is the packaged one of the config's name; where there is none, the defaults.
    """
    here = json.loads(resolved_json(config))
    if config.name in recipes():
        return f"configs/{config.name}.json", differences(
            json.loads(resolved_json(packaged_recipe(config.name))), here
        )
    return "the defaults", differences(defaults_beside(config), here)


def defaults_beside(config: Config) -> dict:
    """The resolved config, as JSON types, that has a value of this one only where there is no
    default.

    It needn't be one that could be run: each section has its defaults, whether or not they go
    together.
    """
    here = config.model_dump(mode="json", by_alias=True)
    defaults = dict(here)
    for name in SECTIONS[()]:
        if (name,) in SECTIONS and here[name] is not None:
            section = kind((name,)).model_validate(_required(here[name], (name,)))
            defaults[name] = section.model_dump(mode="json", by_alias=True)
    return defaults


def _required(tree: dict, at: tuple[str, ...]) -> dict:
    """Of a section's values those that have no default, and those of the sections in it."""
    found = {}
    for name, info in SECTIONS[at].items():
        if (*at, name) in SECTIONS:
            if tree[name] is not None and (inner := _required(tree[name], (*at, name))):
                found[name] = inner
        elif info.is_required():
            found[name] = tree[name]
    return found
