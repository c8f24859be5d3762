"""The tree of a config's keys, and in words what each one takes. Read from the classes of
`schema.py`, so it can't differ from them."""

import json
import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from byol_tf.config.schema import Config

Key = tuple[str, ...]
"""A place in a config: ("training", "epochs"); () is the top level."""


def _plain(annotation: Any) -> Any:
    """The type without `Annotated` and `| None`."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain(next(kind for kind in get_args(annotation) if kind is not types.NoneType))
    return annotation


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _collect(section: type[BaseModel], at: Key) -> dict[Key, dict[str, FieldInfo]]:
    fields = {info.alias or name: info for name, info in section.model_fields.items()}
    found = {at: fields}
    for name, info in fields.items():
        kind = _plain(info.annotation)
        if _is_section(kind):
            found |= _collect(kind, (*at, name))
    return found


SECTIONS: dict[Key, dict[str, FieldInfo]] = _collect(Config, ())
"""Place of a section -> its keys, in the order of `schema.py`."""


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


def kind(key: Key) -> Any:
    """The type that a key takes, without `| None`. Raises `KeyError` for a key that the config
    doesn't have."""
    return _plain(SECTIONS[key[:-1]][key[-1]].annotation)


def takes_null(key: Key) -> bool:
    """Whether null is a value of this key. Raises `KeyError` for a key that the config doesn't
    have."""
    return types.NoneType in get_args(SECTIONS[key[:-1]][key[-1]].annotation)


def options(key: Key) -> tuple[str, ...]:
    """The values that a key has to be one of; empty where it isn't so. Raises `KeyError` for a key
    that the config doesn't have."""
    return get_args(kind(key)) if get_origin(kind(key)) is Literal else ()


def expected(key: Key) -> str:
    """What a key takes, in words: `a whole number of 2 or more`. Raises `KeyError` for a key that
    the config doesn't have."""
    info = SECTIONS[key[:-1]][key[-1]]
    words = _words(info.annotation, info.metadata)
    if not takes_null(key):
        return words
    return (
        listed([*map(quoted, options(key)), "null"], "or") if options(key) else f"{words}, or null"
    )


def listed(words: list[str], last: str) -> str:
    """`a, b or c`, with `last` before the last of them."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def quoted(word: str) -> str:
    """`"word"`."""
    return f'"{word}"'


def _words(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        # A `ExpectedText` or `Rising` says it itself; the latter hides in pydantic's
        # AfterValidator.
        said = getattr(getattr(item, "func", item), "expected", None)
        if said:
            return said
    if get_origin(annotation) is Annotated:
        inner, *items = get_args(annotation)
        return _words(
            inner,
            [
                part
                for item in items
                for part in (item.metadata if isinstance(item, FieldInfo) else [item])
            ]
            + metadata,
        )
    if get_origin(annotation) in (Union, types.UnionType):
        return _words(
            next(kind for kind in get_args(annotation) if kind is not types.NoneType), metadata
        )
    if get_origin(annotation) is Literal:
        return listed(list(map(quoted, get_args(annotation))), "or")
    if _is_section(annotation):
        needed = [
            quoted(name) for name, info in annotation.model_fields.items() if info.is_required()
        ]
        return f"an object with {listed(needed, 'and')}" if needed else "an object"
    bounds = {
        name: getattr(item, name)
        for item in metadata
        for name in ("ge", "gt", "le", "lt")
        if getattr(item, name, None) is not None
    }
    if annotation is bool:
        return "true or false"
    if annotation is int:
        return _whole(bounds)
    if annotation is float:
        return _number(bounds)
    if annotation is str:
        return (
            "a string that is not empty"
            if any(getattr(item, "min_length", 0) for item in metadata)
            else "a string"
        )
    raise TypeError(f"no words for {annotation}")


def _whole(bounds: dict[str, int]) -> str:
    low = bounds.get("ge", bounds["gt"] + 1 if "gt" in bounds else None)
    high = bounds.get("le", bounds["lt"] - 1 if "lt" in bounds else None)
    if low is None or high is None:
        return (
            "a whole number"
            + ("" if low is None else f" of {low} or more")
            + ("" if high is None else f" of {high} or less")
        )
    return f"a whole number from {low} to {high}"


def _number(bounds: dict[str, float]) -> str:
    if "ge" in bounds and "le" in bounds:
        return f"a number from {bounds['ge']:g} to {bounds['le']:g}"
    forms = {
        "ge": "of {:g} or more",
        "gt": "above {:g}",
        "le": "of {:g} or less",
        "lt": "below {:g}",
    }
    return " ".join(
        ["a number", " and ".join(forms[name].format(bound) for name, bound in bounds.items())]
    ).rstrip()


def shown(value: Any) -> str:
    """A value as JSON, on one line, with any character that a terminal might act on escaped, and
    cut after some 60 characters."""
    return printable(json.dumps(value, ensure_ascii=False))


def printable(text: str, limit: int = 60) -> str:
    """The text on one line, with any character that a terminal might act on escaped, and cut at
    `limit`."""
    text = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text[: limit + 1]
    )
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def dotted(key: Key) -> str:
    """A key as it is written in messages: `training.epochs`; parts that are no plain words stand in
    quotes."""
    return ".".join(part if re.fullmatch(r"[\w$-]{1,60}", part) else shown(part) for part in key)


def json_schema(model: type[BaseModel]) -> str:
    """The JSON schema of a model, as a file's text; each description is on one line."""

    def unwrapped(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: " ".join(inner.split())
                if name == "description" and isinstance(inner, str)
                else unwrapped(inner)
                for name, inner in value.items()
            }
        return list(map(unwrapped, value)) if isinstance(value, list) else value

    return json.dumps(unwrapped(model.model_json_schema(by_alias=True)), indent=2) + "\n"
