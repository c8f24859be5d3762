"""Checks between the keys of a config, and the defaults that depend on other keys.

Each check names the keys that it compares, so that it can run when other keys are invalid.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from byol_tf.constants import (
    APPLICATIONS,
    CONVNET_STEM_CHANNELS,
    ENCODERS,
    GROUPS,
    IMAGENET,
    RESNET_STEM_CHANNELS,
)
from pipelines.policy import RGB_OPERATIONS
from pipelines.registry import SOURCES

PROJECTION_SIZE = 256
"""Default of projector.output_size (BYOL paper, section 3.3)."""
TAU_SCHEDULE: Final = "cosine"
"""Default of tau.schedule (BYOL paper, section 3.3)."""
TAU_BASE = 0.996
"""Default of tau.base (BYOL paper, section 3.3)."""
TAU_ENDS = {"cosine": 1.0, "inverse_cosine": 0.5}
"""tau.schedule -> the value of tau.end if that is null (BYOL paper, section 3.3; STL-10 paper,
table 8)."""
TAU_DROP_AT = 0.25
"""The value of tau.drop_at if that is null (STL-10 paper, table 7)."""

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
            text = check(*map(value_of, keys))
            if text is not None:
                yield keys, text


def _register(*keys: str) -> Callable[[_Check], _Check]:
    """Registers a check: a function of the values of these dotted keys.

    It returns the message about the first of the keys, or None if there is no conflict.
    """

    def register(check: _Check) -> _Check:
        _CHECKS.append((keys, check))
        return check

    return register


@_register("data.root", "data.source")
def _check_root(root: str | None, source: str) -> str | None:
    if root is None and (needed := SOURCES[source].root):
        return f'missing; expected {needed}, as data.source is "{source}"'
    if "root" not in SOURCES[source].takes and root is not None:
        return f'expected null, as data.source "{source}" reads no folder; received "{root}"'
    return None


@_register("data.layout", "data.source")
def _check_layout(layout: str, source: str) -> str | None:
    if layout == "auto" or SOURCES[source].root:
        return None
    return f'expected "auto", as data.source "{source}" has no folders; received "{layout}"'


@_register("data.archive", "data.source")
def _check_archive(archive: str | None, source: str) -> str | None:
    if archive is None or "archive" in SOURCES[source].takes:
        return None
    return f'expected null, as data.source "{source}" has no archive; received "{archive}"'


@_register("data.pretrain", "data.source")
def _check_pretrain_split(split: str | None, source: str) -> str | None:
    if split in (None, "train") or SOURCES[source].has_unlabelled:
        return None
    return (
        f'expected "train" or null, as data.source "{source}" has no unlabelled images; '
        f'received "{split}"'
    )


@_register("data.image_size", "data.source")
def _check_image_size(image_size: int | None, source: str) -> str | None:
    native = SOURCES[source].image_side
    if image_size is None or native is None or image_size <= native:
        return None
    return (
        f'expected at most {native}, the side of the images of data.source "{source}"; received '
        f"{image_size}"
    )


@_register("data.image_size", "data.source", "data.cache")
def _check_memory_cache(image_size: int | None, source: str, cache: str) -> str | None:
    if image_size is not None or not SOURCES[source].sizes_differ or cache != "memory":
        return None
    return (
        'missing; expected a whole number of 8 or more, as data.cache "memory" stores photos of '
        "different sizes as one array"
    )


def _register_pixels(key: str, default: Any) -> None:
    """Registers that a key about pixels has its default where a source has RGB of 8 bits."""

    @_register(key, "data.source")
    def check(value: Any, source: str) -> str | None:
        if value == default or SOURCES[source].any_pixels:
            return None
        expected, received = json.dumps(default), json.dumps(value)
        return (
            f'expected {expected}, as data.source "{source}" has RGB images of 8 bits; received '
            f"{received}"
        )


_register_pixels("data.channels", 3)
_register_pixels("data.depth", 8)
_register_pixels("data.range", None)


@_register("data.range", "data.source")
def _check_range(range: Any, source: str) -> str | None:
    if range is None or source != "arrays":
        return None
    return (
        'expected null, as data.source "arrays" has images whose numbers are their pixels; '
        f"received {json.dumps(range)}"
    )


def _register_channel_numbers(key: str) -> None:
    @_register(key, "data.channels")
    def check(numbers: Any, channels: int) -> str | None:
        if numbers is None and channels == 3:
            return "expected 3 numbers, as data.channels is 3; received null"
        if numbers is None or len(numbers) == channels:
            return None
        return (
            f"expected {channels} numbers, as data.channels is {channels}; received {len(numbers)}"
        )


_register_channel_numbers("views.mean")
_register_channel_numbers("views.std")


def _register_rgb_operation(key: str) -> None:
    @_register(key, "data.channels")
    def check(value: float, channels: int) -> str | None:
        if value == 0.0 or channels == 3:
            return None
        return (
            f"expected 0, as it is for images of 3 channels and data.channels is {channels}; "
            f"received {value:g}"
        )


for _name in RGB_OPERATIONS:
    _register_rgb_operation(f"views.first.{_name}")
    _register_rgb_operation(f"views.second.{_name}")


@_register("views.size", "data.image_size", "data.source")
def _check_view_size(size: int, image_size: int | None, source: str) -> str | None:
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
    return f"expected at most {meaning}; received {size}" if size > limit else None


@_register("views.placement", "views.engine")
def _check_placement(placement: str, engine: str) -> str | None:
    if placement == "step" or engine == "fused":
        return None
    return (
        f'expected "step", the default, as views.engine "{engine}" always works in tf.data; '
        f'received "{placement}"'
    )


@_register("views.exact", "views.engine")
def _check_exact(exact: bool, engine: str) -> str | None:
    return (
        f'expected false, as views.engine "{engine}" is exact; received true'
        if exact and engine != "fused"
        else None
    )


@_register("training.gradient_accumulation_steps", "training.batch_size")
def _check_gradient_accumulation(gradient_accumulation_steps: int, batch_size: int) -> str | None:
    if batch_size % gradient_accumulation_steps == 0:
        return None
    return (
        f"expected a divisor of training.batch_size ({batch_size}); received "
        f"{gradient_accumulation_steps}"
    )


@_register("devices.jit_compile", "devices.strategy")
def _check_jit_compile(jit: str, strategy: str) -> str | None:
    if jit != "on" or strategy not in ("mirrored", "multi_worker", "tpu"):
        return None
    why = (
        "a TPU compiles by itself"
        if strategy == "tpu"
        else "replicas share variables that XLA can't reach"
    )
    return f'expected "auto" or "off", as with devices.strategy "{strategy}" {why}; received "on"'


def _stem_channels(encoder: str) -> int:
    return CONVNET_STEM_CHANNELS if encoder == "convnet" else RESNET_STEM_CHANNELS


def _register_own_option(key: str, default: Any) -> None:
    """Registers that a key of the encoder has its default where byol_tf doesn't build that."""

    @_register(key, "encoder.name")
    def check(value: Any, name: str) -> str | None:
        if name in ENCODERS or value == default:
            return None
        expected, received = json.dumps(default), json.dumps(value)
        return (
            f'expected {expected}, its default, as encoder.name "{name}" is built without it; '
            f"received {received}"
        )


_register_own_option("encoder.width", 1.0)
_register_own_option("encoder.stem", "7x7")
_register_own_option("encoder.normalization", "batch")
_register_own_option("encoder.padding", "same")
_register_own_option("encoder.zero_init_residual", False)


@_register("encoder.width", "encoder.name")
def _check_width(width: float, name: str) -> str | None:
    channels = _stem_channels(name)
    if (channels * width) % 1 == 0 or name not in ENCODERS:
        return None
    return (
        f'expected a multiple of 1/{channels}, as the first layer of "{name}" has {channels} x '
        f"width channels; received {width:g}"
    )


@_register("encoder.normalization", "encoder.width", "encoder.name")
def _check_encoder_groups(normalization: str, width: float, name: str) -> str | None:
    channels = _stem_channels(name) * width
    if normalization != "group" or channels % GROUPS == 0 or channels % 1 or name not in ENCODERS:
        return None
    return (
        f'expected another one, as "group" divides channels by {GROUPS} and the first layer of '
        f'"{name}" has {channels:g}; received "group"'
    )


@_register("encoder.padding", "encoder.name")
def _check_padding(padding: str, name: str) -> str | None:
    if padding == "same" or name != "convnet":
        return None
    return f'expected "same", as encoder.name "convnet" supports no other; received "{padding}"'


@_register("encoder.zero_init_residual", "encoder.name")
def _check_zero_init_residual(zero: bool, name: str) -> str | None:
    if not zero or name != "convnet":
        return None
    return 'expected false, as encoder.name "convnet" has no residual blocks; received true'


@_register("encoder.weights", "encoder.normalization")
def _check_weights(weights: str | None, normalization: str) -> str | None:
    if weights is None or normalization not in ("group", "data_init"):
        return None
    return (
        "expected null, as an exported encoder has other layers in place of "
        f'encoder.normalization "{normalization}"; received "{weights}"'
    )


@_register("encoder.weights", "data.channels")
def _check_imagenet_channels(weights: str | None, channels: int) -> str | None:
    if weights != IMAGENET or channels == 3:
        return None
    return (
        f"expected null, as ImageNet's weights are for 3 channels and data.channels is {channels}; "
        f'received "{weights}"'
    )


@_register("encoder.weights", "encoder.name")
def _check_imagenet(weights: str | None, name: str) -> str | None:
    if weights != IMAGENET or name.startswith(APPLICATIONS):
        return None
    return (
        f'expected a file or folder, as "{IMAGENET}" is for an encoder.name '
        f'"{APPLICATIONS}NAME"; received "{weights}" with "{name}"'
    )


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


@_register("projector.output_scale", "projector.output_center", "projector.normalize_output")
def _check_output_affine(scale: bool, center: bool, normalize_output: bool) -> str | None:
    if normalize_output or (scale and center):
        return None
    return (
        "expected true, and projector.output_center true, as projector.normalize_output is false; "
        f"received {str(scale).lower()} and {str(center).lower()}"
    )


@_register("projector.output_scale", "projector.output_center", "projector.normalization")
def _check_output_affine_data_init(scale: bool, center: bool, normalization: str) -> str | None:
    if normalization != "data_init" or (scale and center):
        return None
    return (
        "expected true, and projector.output_center true, as projector.normalization "
        f'"data_init" is a scale and an offset; received {str(scale).lower()} and '
        f"{str(center).lower()}"
    )


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
            return (
                f'expected another one, as "group" divides {key} by {GROUPS}, and it is '
                f'{width}; received "group"'
            )
        if normalization == "group" and width == GROUPS:
            return (
                f'expected another one, as "group" would normalise each of the {GROUPS} units of '
                f'{key} alone, to 0; received "group"'
            )
    return None


@_register("predictor.schedule", "predictor.kind")
def _check_predictor_schedule(schedule: str | None, kind: str) -> str | None:
    if schedule is None or kind == "mlp":
        return None
    return f'expected null, as predictor.kind "{kind}" is not trained; received "{schedule}"'


@_register("predictor.learning_rate_multiplier", "predictor.kind")
def _check_predictor_rate(rate: float, kind: str) -> str | None:
    if rate == 1.0 or kind == "mlp":
        return None
    return f'expected 1, its default, as predictor.kind "{kind}" is not trained; received {rate:g}'


@_register("objective.teacher", "objective.target")
def _check_teacher(teacher: str | None, target: str) -> str | None:
    if target == "teacher" and teacher is None:
        return 'missing; expected the path of an encoder, as objective.target is "teacher"'
    if target != "teacher" and teacher is not None:
        return f'expected null, as objective.target is "{target}"; received "{teacher}"'
    return None


@_register("projector.output_size", "objective.target")
def _check_projection_size(size: int, target: str) -> str | None:
    if target != "teacher" or size == PROJECTION_SIZE:
        return None
    return (
        f'expected {PROJECTION_SIZE}, its default, as with objective.target "teacher" the '
        f"projection is as wide as the teacher's representation; received {size}"
    )


@_register("objective.temperature", "objective.negatives")
def _check_temperature(temperature: float | None, negatives: float) -> str | None:
    if negatives and temperature is None:
        return f"missing; expected a number above 0, as objective.negatives is {negatives:g}"
    if not negatives and temperature is not None:
        return f"expected null, as objective.negatives is 0; received {temperature:g}"
    return None


@_register("objective.negatives", "objective.similarity")
def _check_negatives(negatives: float, similarity: str) -> str | None:
    if not negatives or similarity == "cosine":
        return None
    return (
        f'expected 0, as objective.similarity "{similarity}" uses no negatives; received '
        f"{negatives:g}"
    )


@_register("tau.schedule", "tau.base", "tau.end", "tau.drop_at", "objective.target")
def _check_tau_is_used(
    schedule: str, base: float, end: float | None, drop_at: float | None, target: str
) -> str | None:
    if target == "ema" or (schedule, base, end, drop_at) == (TAU_SCHEDULE, TAU_BASE, None, None):
        return None
    return (
        f'expected no tau, as objective.target "{target}" averages nothing; received '
        f'"{schedule}" from {base:g}'
    )


@_register("tau.end", "tau.schedule", "tau.base")
def _check_tau_end(end: float | None, schedule: str, base: float) -> str | None:
    if schedule in ("constant", "drop"):
        return (
            None
            if end is None
            else f'expected null, as tau.schedule "{schedule}" has no end; received {end:g}'
        )
    if schedule == "cosine" and end is not None and end < base:
        return (
            f'expected tau.base ({base:g}) or more, as tau.schedule "cosine" rises; received '
            f"{end:g}"
        )
    if schedule == "inverse_cosine" and (TAU_ENDS[schedule] if end is None else end) > base:
        received = f"null, which stands for {TAU_ENDS[schedule]:g}" if end is None else f"{end:g}"
        return (
            f'expected tau.base ({base:g}) or less, as tau.schedule "inverse_cosine" falls; '
            f"received {received}"
        )
    return None


@_register("tau.drop_at", "tau.schedule")
def _check_tau_drop_at(drop_at: float | None, schedule: str) -> str | None:
    if drop_at is None or schedule == "drop":
        return None
    return f'expected null, as tau.schedule "{schedule}" drops nothing; received {drop_at:g}'


@_register("optimizer.warmup_epochs", "optimizer.schedule", "training.epochs")
def _check_warmup(warmup: float, schedule: str, epochs: int) -> str | None:
    if schedule == "cosine" and warmup >= epochs:
        return (
            f"expected fewer than training.epochs ({epochs}), as the cosine follows the "
            f"warm-up; received {warmup:g}"
        )
    if warmup > epochs:
        return f"expected at most training.epochs ({epochs}); received {warmup:g}"
    return None


@_register("encoder.frozen_epochs", "optimizer.warmup_epochs", "training.epochs")
def _check_frozen_epochs(frozen: float, warmup: float, epochs: int) -> str | None:
    if not frozen or frozen + warmup < epochs:
        return None
    return (
        f"expected fewer than training.epochs ({epochs}) less optimizer.warmup_epochs "
        f"({warmup:g}), in which the encoder is trained; received {frozen:g}"
    )


@_register("training.batch_size", "data.pretrain_images")
def _check_batch_size(batch_size: int, images: int | None) -> str | None:
    if images is None or batch_size <= images:
        return None
    return (
        f"expected at most data.pretrain_images ({images}), or no batch is ever full; received "
        f"{batch_size}"
    )


@_register("devices.tpu", "devices.strategy")
def _check_tpu(tpu: str, strategy: str) -> str | None:
    if tpu == "local" or strategy in ("auto", "tpu"):
        return None
    return (
        f'expected "local", its default, as devices.strategy "{strategy}" uses no TPU; received '
        f'"{tpu}"'
    )


@_register("devices.precision", "devices.strategy")
def _check_precision(precision: str, strategy: str) -> str | None:
    if precision != "mixed_float16" or strategy not in ("cpu", "tpu"):
        return None
    return (
        f'expected "float32" or "mixed_bfloat16", as devices.strategy "{strategy}" has no fast '
        f'float16; received "{precision}"'
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
        f'nothing (monitor.metric "effective_rank" needs no labels); received "{split}"'
    )


@_register("probe.neighbours", "probe.train_images")
def _check_neighbours(neighbours: int, images: int | None) -> str | None:
    if images is None or neighbours <= images:
        return None
    return f"expected at most probe.train_images ({images}); received {neighbours}"
