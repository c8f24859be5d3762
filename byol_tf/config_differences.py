"""In which keys two configs differ. Needs no TensorFlow."""

import json

_DOES_NOT_MATTER = ("about", "$schema", "run", "monitor")
"""Keys that change nothing of what is learned."""
_SAME_STEPS = {
    "data.cache": "pixels are the files', held or read again",
    "devices.steps_per_call": "the same steps one after the other, however many before Python is asked",
    "devices.tpu": "a name",
    "training.recompute": "what the backward pass needs is computed again from the same numbers",
}
"""Keys that are listed where runs are compared, and with which a run goes on all the same, each with the reason."""
SAME_IMAGES = ("data.root", "data.archive")
"""Where the images are: with the same images a run goes on, and its checkpoint has their fingerprint."""


def flat(tree: dict) -> dict[str, str]:
    """Dotted key -> value as JSON, of every key of a resolved config that matters for what is learned."""
    return _flatten({key: value for key, value in tree.items() if key not in _DOES_NOT_MATTER})


def differences(saved: dict, config: dict) -> list[tuple[str, str, str]]:
    """(dotted key, value there, value now) of every key that matters and differs."""
    there, now = flat(saved), flat(config)
    keys = sorted(set(there) | set(now))
    return [(key, there.get(key, "absent"), now.get(key, "absent")) for key in keys if there.get(key) != now.get(key)]


def differences_of_runs(saved: dict, config: dict) -> list[tuple[str, str, str]]:
    """Those `differences` that make it another run."""
    return [each for each in differences(saved, config) if each[0] not in _SAME_STEPS]


def listed(differing: list[tuple[str, str, str]]) -> list[str]:
    """A line for people for each."""
    return [f"  {key}: {was} there, {now} now" for key, was, now in differing]


def _flatten(tree: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in tree.items():
        found |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": json.dumps(value)}
    return found
