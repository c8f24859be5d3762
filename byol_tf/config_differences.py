"""In which keys two configs differ. Needs no TensorFlow."""

import json

_DOES_NOT_MATTER = ("about", "$schema", "run", "monitor")
"""Keys that change nothing of what is learned."""


def flat(tree: dict) -> dict[str, str]:
    """Dotted key -> value as JSON, of every key of a resolved config that matters for what is learned."""
    return _flatten({key: value for key, value in tree.items() if key not in _DOES_NOT_MATTER})


def differences(saved: dict, config: dict) -> list[tuple[str, str, str]]:
    """(dotted key, value there, value now) of every key that matters and differs."""
    there, now = flat(saved), flat(config)
    keys = sorted(set(there) | set(now))
    return [(key, there.get(key, "absent"), now.get(key, "absent")) for key in keys if there.get(key) != now.get(key)]


def listed(differing: list[tuple[str, str, str]]) -> list[str]:
    """A line for people for each."""
    return [f"  {key}: {was} there, {now} now" for key, was, now in differing]


def _flatten(tree: dict, prefix: str = "") -> dict[str, str]:
    found = {}
    for key, value in tree.items():
        found |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": json.dumps(value)}
    return found
