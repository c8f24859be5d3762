"""In what a config differs from the packaged recipe of its name, or else from the defaults. Needs no TensorFlow."""

import json

from byol_tf.config import Config
from byol_tf.config_differences import differences
from byol_tf.config_file import packaged_recipe, recipes, resolved_json
from byol_tf.config_keys import SECTIONS, kind


def recipe_differences(config: Config) -> tuple[str, list[tuple[str, str, str]]]:
    """What a config is compared with, in words, and (dotted key, value there, value here) of what differs.

    The recipe is the packaged one of the config's name; where there is none, the defaults.
    """
    here = json.loads(resolved_json(config))
    if config.name in recipes():
        return f"configs/{config.name}.json", differences(json.loads(resolved_json(packaged_recipe(config.name))), here)
    return "the defaults", differences(defaults_beside(config), here)


def defaults_beside(config: Config) -> dict:
    """The resolved config, as JSON types, that has a value of this one only where there is no default.

    It needn't be one that could be run: each section has its defaults, whether or not they go together.
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
