"""The tree of a config's keys and the type of each, read from the classes of `schema.py`."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from byol_tf.config.schema import Config
from byol_tf.config.types import ExpectedText

Key = tuple[str, ...]
"""Path of a key in a config: ("training", "epochs"); () is the top level."""

RENAMED = {
    "data.max_bad_fraction": "data.max_unreadable_fraction",
    "devices.jit": "devices.jit_compile",
    "devices.steps_per_call": "devices.steps_per_execution",
    "objective.directions": "objective.symmetrization",
    "optimizer.reference_batch": "optimizer.reference_batch_size",
    "predictor.hidden": "predictor.hidden_size",
    "predictor.rate": "predictor.learning_rate_multiplier",
    "probe.every": "probe.every_epochs",
    "projector.hidden": "projector.hidden_size",
    "projector.layers": "projector.num_layers",
    "projector.outputs": "projector.output_size",
    "run.checkpoint_minutes": "run.checkpoint_every_minutes",
    "run.checkpoint_steps": "run.checkpoint_every_steps",
    "training.accumulation": "training.gradient_accumulation_steps",
    "training.recompute": "training.rematerialize",
}
"""Keys of configs written before version 0.1.0 -> their names since."""


def unwrap(annotation: Any, constraints: Iterable[Any] = ()) -> tuple[Any, list[Any]]:
    """Strips `Annotated` and `| None` from a type.

    Args:
        annotation: a type annotation.
        constraints: pydantic's metadata known so far, such as `Ge(1)`.

    Returns:
        The plain type, and all constraints on its values.
    """
    if get_origin(annotation) is Annotated:
        inner, *items = get_args(annotation)
        nested = (item.metadata if isinstance(item, FieldInfo) else [item] for item in items)
        return unwrap(inner, [*(part for metadata in nested for part in metadata), *constraints])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(annotation) if arg is not types.NoneType)
        return unwrap(inner, constraints)
    return annotation, list(constraints)


def is_section(annotation: Any) -> bool:
    """Returns whether a plain type is a section, that is an object of keys."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _collect_sections(section: type[BaseModel], path: Key) -> dict[Key, dict[str, FieldInfo]]:
    fields = {info.alias or name: info for name, info in section.model_fields.items()}
    sections = {path: fields}
    for name, info in fields.items():
        plain = unwrap(info.annotation)[0]
        if is_section(plain):
            sections |= _collect_sections(plain, (*path, name))
    return sections


SECTIONS: dict[Key, dict[str, FieldInfo]] = _collect_sections(Config, ())
"""Path of a section -> its keys, in the order of `schema.py`."""


def field_info(key: Key) -> FieldInfo:
    """Returns pydantic's description of a key. Raises `KeyError` for an unknown key."""
    return SECTIONS[key[:-1]][key[-1]]


def key_type(key: Key) -> Any:
    """Returns the type of a key's values, without `| None`. `KeyError` for an unknown key."""
    return unwrap(field_info(key).annotation)[0]


def accepts_null(key: Key) -> bool:
    """Returns whether a key may be null. Raises `KeyError` for an unknown key."""
    return types.NoneType in get_args(field_info(key).annotation)


def allowed_values(key: Key) -> tuple[str, ...]:
    """Returns the words that a key chooses from; empty if it takes none of a fixed set.

    Raises `KeyError` for an unknown key.
    """
    info = field_info(key)
    plain, constraints = unwrap(info.annotation, info.metadata)
    if get_origin(plain) is Literal:
        return tuple(value for value in get_args(plain) if isinstance(value, str))
    return next((each.words for each in constraints if isinstance(each, ExpectedText)), ())


def split_key(name: str) -> Key:
    """Returns the key of a dotted name: ("training", "epochs") for `training.epochs`."""
    return tuple(name.split("."))


def is_given(tree: Mapping[str, Any], key: Key) -> bool:
    """Returns whether the tree itself holds a key; otherwise its default applies."""
    value: Any = tree
    for name in key:
        if not isinstance(value, Mapping) or name not in value:
            return False
        value = value[name]
    return True


def value_or_default(tree: Mapping[str, Any], key: Key) -> Any:
    """Returns the value of a key in the tree, or else its default."""
    value: Any = tree
    for depth, name in enumerate(key):
        if name not in value:
            value = SECTIONS[key[:depth]][name].get_default()
            for attribute in key[depth + 1 :]:
                value = getattr(value, attribute)
            return value
        value = value[name]
    return value
