"""Checks between the keys of a config, and the defaults that depend on other keys.

Each check names the keys that it compares, so that it can run when other keys are invalid.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from byol_tf.constants import (
    APPLICATIONS,
    CONVNET_STEM_CHANNELS,
    ENCODERS,
    GROUPS,
    IMAGENET,
    PROJECTION_SIZE,
    RESNET_STEM_CHANNELS,
)
from pipelines.policy import RGB_OPERATIONS
from pipelines.registry import SOURCES

TAU_SCHEDULE: Final = "cosine"
"""Default of tau.schedule (BYOL paper, section 3.3)."""
TAU_BASE = 0.996
"""Default of tau.base (BYOL paper, section 3.3)."""
TAU_ENDS = {"cosine": 1.0, "inverse_cosine": 0.5}
"""tau.schedule -> the value of tau.end if that is null (BYOL paper, section 3.3; STL-10 paper,
table 8)."""
TAU_DROP_AT = 0.25
"""The value of tau.drop_at if that is null (STL-10 paper, table 7)."""


def with_channel_defaults(tree: Any) -> Any:
    """Returns a config, as read from JSON, with the defaults of images that aren't RGB.

    Saturation, hue and grayscale, which only RGB has, are then off, and mean and deviation unknown.
    A value that is given stays.
    """
    data, views = (
        (tree.get(name) for name in ("data", "views")) if isinstance(tree, dict) else [0, 0]
    )
    if not isinstance(data, dict) or not isinstance(views, dict) or data.get("channels", 3) == 3:
        return tree
    filled: dict[str, Any] = {"mean": None, "std": None, **views}
    for name in ("first", "second"):
        changes = views.get(name, {})
        if isinstance(changes, dict):
            filled[name] = {**dict.fromkeys(RGB_OPERATIONS, 0.0), **changes}
    return {**tree, "views": filled}


_Check = Callable[..., str | None]
_CHECKS: list[tuple[tuple[str, ...], _Check]] = []


def conflicts(
    value_of: Callable[[str], Any], is_valid: Callable[[str], bool] = lambda key: True
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Runs the checks and finds conflicts between keys.

    Args:
        value_of: dotted key -> its value, or its default.
        is_valid: dotted key -> whether its value is valid by itself; a check that compares a key
            that isn't is skipped.

    Yields:
        For each failed check the dotted keys that it compares, the wrong one first, and the
        message, `expected ...; received ...`.
    """
    for keys, check in _CHECKS:
        if all(map(is_valid, keys)):
            values = list(map(value_of, keys))
            expected = check(*values)
            if expected is not None:
                missing = expected.startswith("missing")
                yield keys, expected if missing else f"{expected}; received {_written(values[0])}"


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _register(*keys: str) -> Callable[[_Check], _Check]:
    """Registers a check: a function of the values of these dotted keys.

    It returns what is expected of the first of the keys, or None if there is no conflict.
    """

    def register(check: _Check) -> _Check:
        _CHECKS.append((keys, check))
        return check

    return register


def _register_defaults(
    other: str, is_free: Callable[[Any], object], reason: str, defaults: Mapping[str, Any]
) -> None:
    """Registers that keys have their defaults unless the value of another one makes them free.

    Args:
        other: the other key.
        is_free: its value -> whether these keys may have any value.
        reason: why they have their defaults otherwise, with {} for the other value.
        defaults: key -> its default, which changes nothing where the key isn't free.
    """
    for key, default in defaults.items():

        @_register(key, other)
        def check(value: Any, other_value: Any, default: Any = default) -> str | None:
            if value == default or is_free(other_value):
                return None
            why = reason.format(_written(other_value))
            return f"expected {_written(default)}, its default, as {why}"


_register_defaults(
    "data.source",
    lambda source: SOURCES[source].root,
    "data.source {} has no folders",
    {"data.layout": "auto"},
)
_register_defaults(
    "data.source",
    lambda source: "archive" in SOURCES[source].takes,
    "data.source {} has no archive",
    {"data.archive": None},
)
_register_defaults(
    "data.source",
    lambda source: SOURCES[source].any_pixels,
    "data.source {} has RGB images of 8 bits",
    {"data.channels": 3, "data.depth": 8, "data.range": None},
)
_register_defaults(
    "data.channels",
    lambda channels: channels == 3,
    "it is for images of 3 channels and data.channels is {}",
    {f"views.{view}.{name}": 0.0 for view in ("first", "second") for name in RGB_OPERATIONS},
)
_register_defaults(
    "views.engine",
    lambda engine: engine == "fused",
    "views.engine {} always works in tf.data",
    {"views.placement": "step"},
)
_register_defaults(
    "views.engine",
    lambda engine: engine == "fused",
    "views.engine {} is exact",
    {"views.exact": False},
)
_register_defaults(
    "encoder.name",
    lambda name: name in ENCODERS,
    "encoder.name {} is built without it",
    {
        "encoder.width": 1.0,
        "encoder.stem": "7x7",
        "encoder.normalization": "batch",
        "encoder.padding": "same",
        "encoder.zero_init_residual": False,
    },
)
_register_defaults(
    "encoder.name",
    lambda name: name != "convnet",
    "encoder.name {} doesn't support it",
    {"encoder.padding": "same", "encoder.zero_init_residual": False},
)
_register_defaults(
    "projector.normalize_output",
    bool,
    "projector.normalize_output is {}",
    {"projector.output_scale": True, "projector.output_center": True},
)
_register_defaults(
    "projector.normalization",
    lambda name: name != "data_init",
    "projector.normalization {} is a scale and an offset",
    {"projector.output_scale": True, "projector.output_center": True},
)
_register_defaults(
    "predictor.kind",
    lambda kind: kind == "mlp",
    "predictor.kind {} is not trained",
    {"predictor.schedule": None, "predictor.learning_rate_multiplier": 1.0},
)
_register_defaults(
    "objective.target",
    lambda target: target != "teacher",
    "with objective.target {} the projection is as wide as the teacher's representation",
    {"projector.output_size": PROJECTION_SIZE},
)
_register_defaults(
    "objective.target",
    lambda target: target == "ema",
    "objective.target {} averages nothing",
    {"tau.schedule": TAU_SCHEDULE, "tau.base": TAU_BASE, "tau.end": None, "tau.drop_at": None},
)
_register_defaults(
    "objective.similarity",
    lambda similarity: similarity == "cosine",
    "objective.similarity {} uses no negatives",
    {"objective.negatives": 0.0},
)
_register_defaults(
    "tau.schedule",
    lambda schedule: schedule == "drop",
    "tau.schedule {} drops nothing",
    {"tau.drop_at": None},
)
_register_defaults(
    "devices.strategy",
    lambda strategy: strategy in ("auto", "tpu"),
    "devices.strategy {} uses no TPU",
    {"devices.tpu": "local"},
)


@_register("data.root", "data.source")
def _check_root(root: str | None, source: str) -> str | None:
    if root is None and (needed := SOURCES[source].root):
        return f'missing; expected {needed}, as data.source is "{source}"'
    if "root" not in SOURCES[source].takes and root is not None:
        return f'expected null, as data.source "{source}" reads no folder'
    return None


@_register("data.pretrain", "data.source")
def _check_pretrain_split(split: str | None, source: str) -> str | None:
    if split in (None, "train") or SOURCES[source].has_unlabelled:
        return None
    return f'expected "train" or null, as data.source "{source}" has no unlabelled images'


@_register("data.image_size", "data.source")
def _check_image_size(image_size: int | None, source: str) -> str | None:
    native = SOURCES[source].image_side
    if image_size is None or native is None or image_size <= native:
        return None
    return f'expected at most {native}, the side of the images of data.source "{source}"'


@_register("data.image_size", "data.source", "data.cache")
def _check_memory_cache(image_size: int | None, source: str, cache: str) -> str | None:
    if image_size is not None or not SOURCES[source].sizes_differ or cache != "memory":
        return None
    return (
        'missing; expected a whole number of 8 or more, as data.cache "memory" stores photos of '
        "different sizes as one array"
    )


@_register("data.range", "data.source")
def _check_range(range: Any, source: str) -> str | None:
    if range is None or source != "arrays":
        return None
    return 'expected null, as data.source "arrays" has images whose numbers are their pixels'


def _register_channel_numbers(key: str) -> None:
    @_register(key, "data.channels")
    def check(numbers: Any, channels: int) -> str | None:
        if len(numbers) == channels if numbers else channels != 3:  # else they are measured first
            return None
        return f"expected {channels} numbers, as data.channels is {channels}"


_register_channel_numbers("views.mean")
_register_channel_numbers("views.std")


@_register("views.size", "data.image_size", "data.source")
@_register("encoder.inference_size", "data.image_size", "data.source")
def _check_size(size: int | None, image_size: int | None, source: str) -> str | None:
    if size is None:
        return None
    native = SOURCES[source].image_side
    if image_size is not None and (native is None or image_size <= native):
        limit, meaning = image_size, f"data.image_size ({image_size})"
    elif native is not None:
        limit, meaning = native, f'{native}, the side of the images of data.source "{source}"'
    elif (default := SOURCES[source].default_side) is not None:
        limit = default
        meaning = f"{default}, the side of {source} if data.image_size is null"
    else:
        return None
    return f"expected at most {meaning}" if size > limit else None


@_register("training.gradient_accumulation_steps", "training.batch_size")
def _check_gradient_accumulation(gradient_accumulation_steps: int, batch_size: int) -> str | None:
    if batch_size % gradient_accumulation_steps == 0:
        return None
    return f"expected a divisor of training.batch_size ({batch_size})"


@_register("devices.jit_compile", "devices.strategy")
def _check_jit_compile(jit: str, strategy: str) -> str | None:
    if jit != "on" or strategy not in ("mirrored", "multi_worker", "tpu"):
        return None
    why = (
        "a TPU compiles by itself"
        if strategy == "tpu"
        else "replicas share variables that XLA can't reach"
    )
    return f'expected "auto" or "off", as with devices.strategy "{strategy}" {why}'


def _stem_channels(encoder: str) -> int:
    return CONVNET_STEM_CHANNELS if encoder == "convnet" else RESNET_STEM_CHANNELS


@_register("encoder.width", "encoder.name")
def _check_width(width: float, name: str) -> str | None:
    channels = _stem_channels(name)
    if (channels * width) % 1 == 0 or name not in ENCODERS:
        return None
    return (
        f'expected a multiple of 1/{channels}, as the first layer of "{name}" has {channels} x '
        f"width channels"
    )


@_register("encoder.normalization", "encoder.width", "encoder.name")
def _check_encoder_groups(normalization: str, width: float, name: str) -> str | None:
    channels = _stem_channels(name) * width
    if normalization != "group" or channels % GROUPS == 0 or channels % 1 or name not in ENCODERS:
        return None
    return (
        f'expected another one, as "group" divides channels by {GROUPS} and the first layer of '
        f'"{name}" has {channels:g}'
    )


@_register("encoder.weights", "encoder.normalization")
def _check_weights(weights: str | None, normalization: str) -> str | None:
    if weights is None or normalization not in ("group", "data_init"):
        return None
    return (
        "expected null, as an exported encoder has other layers in place of "
        f'encoder.normalization "{normalization}"'
    )


@_register("encoder.weights", "data.channels")
def _check_imagenet_channels(weights: str | None, channels: int) -> str | None:
    if weights != IMAGENET or channels == 3:
        return None
    return (
        f"expected null, as ImageNet's weights are for 3 channels and data.channels is {channels}"
    )


@_register("encoder.weights", "encoder.name")
def _check_imagenet(weights: str | None, name: str) -> str | None:
    if weights != IMAGENET or name.startswith(APPLICATIONS):
        return None
    return f'expected a file or folder, as "{IMAGENET}" is for an encoder.name "{APPLICATIONS}NAME"'


@_register(
    "projector.normalization",
    "projector.hidden_size",
    "projector.output_size",
    "projector.normalize_output",
    "projector.num_layers",
)
def _check_projector_groups(
    normalization: str, hidden: int, outputs: int, normalize_output: bool, layers: int
) -> str | None:
    widths = {
        "projector.hidden_size": hidden if layers > 1 else None,
        "projector.output_size": outputs if normalize_output else None,
    }
    return _check_groups(normalization, widths)


@_register(
    "predictor.normalization",
    "predictor.hidden_size",
    "projector.output_size",
    "predictor.normalize_output",
    "predictor.kind",
)
def _check_predictor_groups(
    normalization: str, hidden: int, outputs: int, normalize_output: bool, kind: str
) -> str | None:
    widths = {
        "predictor.hidden_size": hidden,
        "projector.output_size": outputs if normalize_output else None,
    }
    return None if kind == "none" else _check_groups(normalization, widths)


def _check_groups(normalization: str, widths: dict[str, int | None]) -> str | None:
    for key, width in widths.items():
        if normalization == "group" and width is not None and width % GROUPS:
            return f'expected another one, as "group" divides {key} by {GROUPS}, and it is {width}'
        if normalization == "group" and width == GROUPS:
            return (
                f'expected another one, as "group" would normalise each of the {GROUPS} units of '
                f"{key} alone, to 0"
            )
    return None


@_register("objective.teacher", "objective.target")
def _check_teacher(teacher: str | None, target: str) -> str | None:
    if target == "teacher" and teacher is None:
        return 'missing; expected the path of an encoder, as objective.target is "teacher"'
    if target != "teacher" and teacher is not None:
        return f'expected null, as objective.target is "{target}"'
    return None


@_register("objective.temperature", "objective.negatives")
def _check_temperature(temperature: float | None, negatives: float) -> str | None:
    if negatives and temperature is None:
        return f"missing; expected a number above 0, as objective.negatives is {negatives:g}"
    if not negatives and temperature is not None:
        return "expected null, as objective.negatives is 0"
    return None


@_register("tau.end", "tau.schedule", "tau.base")
def _check_tau_end(end: float | None, schedule: str, base: float) -> str | None:
    if schedule in ("constant", "drop"):
        return None if end is None else f'expected null, as tau.schedule "{schedule}" has no end'
    if schedule == "cosine" and end is not None and end < base:
        return f'expected tau.base ({base:g}) or more, as tau.schedule "cosine" rises'
    if schedule == "inverse_cosine" and (TAU_ENDS[schedule] if end is None else end) > base:
        default = f" (null is {TAU_ENDS[schedule]:g})" if end is None else ""
        return (
            f'expected tau.base ({base:g}) or less{default}, as tau.schedule "inverse_cosine" falls'
        )
    return None


@_register("optimizer.warmup_epochs", "optimizer.schedule", "training.epochs")
def _check_warmup(warmup: float, schedule: str, epochs: int) -> str | None:
    if schedule == "cosine" and warmup >= epochs:
        return f"expected fewer than training.epochs ({epochs}), as the cosine follows the warm-up"
    if warmup > epochs:
        return f"expected at most training.epochs ({epochs})"
    return None


@_register("encoder.frozen_epochs", "optimizer.warmup_epochs", "training.epochs")
def _check_frozen_epochs(frozen: float, warmup: float, epochs: int) -> str | None:
    if not frozen or frozen + warmup < epochs:
        return None
    return (
        f"expected fewer than training.epochs ({epochs}) less optimizer.warmup_epochs "
        f"({warmup:g}), in which the encoder is trained"
    )


@_register("encoder.freeze_batch_norm", "encoder.weights", "encoder.name")
def _check_freeze_batch_norm(freeze: bool, weights: str | None, name: str) -> str | None:
    if not freeze or weights is not None or name not in ENCODERS:
        return None
    return "expected false, as without encoder.weights there are no statistics to keep"


@_register("training.batch_size", "data.pretrain_images")
def _check_batch_size(batch_size: int, images: int | None) -> str | None:
    if images is None or batch_size <= images:
        return None
    return f"expected at most data.pretrain_images ({images}), or no batch is ever full"


@_register("devices.precision", "devices.strategy")
def _check_precision(precision: str, strategy: str) -> str | None:
    if precision != "mixed_float16" or strategy not in ("cpu", "tpu"):
        return None
    return (
        f'expected "float32" or "mixed_bfloat16", as devices.strategy "{strategy}" has no fast '
        f"float16"
    )


@_register("probe.split", "monitor.metric", "monitor.early_stopping", "run.export")
def _check_held_out(split: str, metric: str, patience: int | None, export: str) -> str | None:
    if split == "held_out" or metric == "effective_rank":
        return None
    if patience is None and export == "last":
        return None
    key = "monitor.early_stopping" if patience is not None else 'run.export "best"'
    return (
        f'expected "held_out", as {key} compares epochs by {metric}, and test labels must decide '
        f'nothing (monitor.metric "effective_rank" needs no labels)'
    )


@_register("probe.neighbours", "probe.train_images")
def _check_neighbours(neighbours: int, images: int | None) -> str | None:
    if images is None or neighbours <= images:
        return None
    return f"expected at most probe.train_images ({images})"
