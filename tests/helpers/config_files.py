"""A config with what it must have, changes of it, and what is said of one."""

import json
from pathlib import Path

import pytest

from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError

BASE = {
    "name": "mine",
    "data": {"source": "stl10"},
    "views": {"size": 96},
    "optimizer": {"base_learning_rate": 0.001},
    "training": {"epochs": 100, "batch_size": 64},
}
GONE = object()


def edited(**changes):
    """Returns BASE with values set at dotted keys (`__` for the dot); GONE removes a key."""
    tree = json.loads(json.dumps(BASE))
    for name, value in changes.items():
        *path, last = name.split("__")
        section = tree
        for part in path:
            section = section.setdefault(part, {})
        if value is GONE:
            del section[last]
        else:
            section[last] = value
    return tree


def message(content, overrides=(), path="c.json"):
    """Returns the message of `load_config` for a file with this text, bytes or tree."""
    if isinstance(content, bytes):
        Path(path).write_bytes(content)
    else:
        Path(path).write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)
