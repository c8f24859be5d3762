"""What the keys of a config demand of each other.

Each check names the keys that it needs, so that it can be run, or left out, whatever is wrong with
the other keys.
"""

from collections.abc import Callable, Iterator
from typing import Any

from pipelines.registry import SOURCES

GROUPS = 16
"""Of group normalisation (paper without batch statistics, section 3.3)."""
TAU_ENDS = {"cosine": 1.0, "inverse_cosine": 0.5}
"""tau.schedule -> tau.end if it is null (BYOL paper, section 3.3; STL-10 paper, table 8)."""
TAU_DROP_AT = 0.25
"""tau.drop_at if it is null (STL-10 paper, table 7)."""

_Check = Callable[..., str | None]
_CHECKS: list[tuple[tuple[str, ...], _Check]] = []


def conflicts(
    value_of: Callable[[str], Any], knows: Callable[[str], bool] = lambda key: True
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields (the keys involved, what was expected and received) for each failed check; the first
    of the keys is the one to blame.

    Args:
        value_of: dotted key -> its value, the default included.
        knows: dotted key -> whether its value is valid; a check that needs another is left out.
    """
    for keys, check in _CHECKS:
        if all(map(knows, keys)):
            text = check(*map(value_of, keys))
            if text is not None:
                yield keys, text


def _check(*keys: str) -> Callable[[_Check], _Check]:
    """Registers a function of these keys' values that returns what is wrong with the first of them,
    or None."""

    def register(check: _Check) -> _Check:
        _CHECKS.append((keys, check))
        return check

    return register


@_check("data.root", "data.source")
def _root_fits_source(root: str | None, source: str) -> str | None:
    if source == "folder" and root is None:
        return 'missing; expected the folder that holds the photos, as data.source is "folder"'
    if "root" not in SOURCES[source].takes and root is not None:
        return f'expected null, as data.source "{source}" reads no folder; received "{root}"'
    return None


@_check("data.archive", "data.source")
def _archive_fits_source(archive: str | None, source: str) -> str | None:
    if archive is None or "archive" in SOURCES[source].takes:
        return None
    return f'expected null, as data.source "{source}" has no archive; received "{archive}"'


@_check("data.pretrain", "data.source")
def _split_fits_source(split: str | None, source: str) -> str | None:
    if split in (None, "train") or SOURCES[source].has_unlabelled:
        return None
    return (
        f'expected "train" or null, as data.source "{source}" has no unlabelled images; '
        f'received "{split}"'
    )


@_check("data.image_size", "data.source")
def _images_are_not_enlarged(image_size: int | None, source: str) -> str | None:
    native = SOURCES[source].image_side
    if image_size is None or native is None or image_size <= native:
        return None
    return (
        f'expected at most {native}, the side of the images of data.source "{source}"; received '
        f"{image_size}"
    )


@_check("data.image_size", "data.source", "data.cache")
def _images_in_memory_have_one_size(image_size: int | None, source: str, cache: str) -> str | None:
    if image_size is not None or not SOURCES[source].sizes_differ or cache != "memory":
        return None
    return (
        'missing; expected a whole number of 8 or more, as data.cache "memory" holds photos of '
        "different sizes as one array"
    )


@_check("views.size", "data.image_size", "data.source")
def _views_are_not_enlarged(size: int, image_size: int | None, source: str) -> str | None:
    native = SOURCES[source].image_side
    if image_size is not None and (native is None or image_size <= native):
        limit, meaning = image_size, f"data.image_size ({image_size})"
    elif native is not None:
        limit, meaning = native, f'{native}, the side of the images of data.source "{source}"'
    elif (limit := SOURCES[source].default_side) is not None:
        meaning = f"{limit}, at which {source} are drawn if data.image_size is null"
    else:
        return None
    return f"expected at most {meaning}; received {size}" if size > limit else None


@_check("views.placement", "views.engine")
def _only_fused_views_have_two_places(placement: str, engine: str) -> str | None:
    if placement == "step" or engine == "fused":
        return None
    return (
        f'expected "step", the default, as views.engine "{engine}" works in tf.data anyway; '
        f'received "{placement}"'
    )


@_check("views.exact", "views.engine")
def _only_fused_views_have_two_ways(exact: bool, engine: str) -> str | None:
    return (
        f'expected false, as views.engine "{engine}" is exact; received true'
        if exact and engine != "fused"
        else None
    )


@_check("training.gradient_accumulation_steps", "training.batch_size")
def _parts_divide_the_batch(gradient_accumulation_steps: int, batch_size: int) -> str | None:
    if batch_size % gradient_accumulation_steps == 0:
        return None
    return (
        f"expected a divisor of training.batch_size ({batch_size}); received "
        f"{gradient_accumulation_steps}"
    )


@_check("devices.jit_compile", "devices.strategy")
def _jit_is_for_one_device(jit: str, strategy: str) -> str | None:
    if jit != "on" or strategy not in ("mirrored", "multi_worker", "tpu"):
        return None
    why = (
        "a TPU compiles by itself"
        if strategy == "tpu"
        else "replicas share variables that XLA can't reach"
    )
    return f'expected "auto" or "off", as with devices.strategy "{strategy}" {why}; received "on"'


def _first_channels(encoder: str) -> int:
    return 32 if encoder == "convnet" else 64


@_check("encoder.width", "encoder.name")
def _width_gives_whole_channels(width: float, name: str) -> str | None:
    channels = _first_channels(name)
    if (channels * width) % 1 == 0:
        return None
    return (
        f'expected a multiple of 1/{channels}, as the first layer of "{name}" has {channels} x '
        f"width channels; received {width:g}"
    )


@_check("encoder.normalization", "encoder.width", "encoder.name")
def _groups_divide_channels(normalization: str, width: float, name: str) -> str | None:
    channels = _first_channels(name) * width
    if normalization != "group" or channels % GROUPS == 0 or channels % 1:
        return None
    return (
        f'expected another one, as "group" divides channels by {GROUPS} and the first layer of '
        f'"{name}" has {channels:g}; received "group"'
    )


@_check("encoder.padding", "encoder.name")
def _convnet_has_one_padding(padding: str, name: str) -> str | None:
    if padding == "same" or name != "convnet":
        return None
    return f'expected "same", as encoder.name "convnet" knows no other; received "{padding}"'


@_check("encoder.weights", "encoder.normalization")
def _weights_are_what_was_trained(weights: str | None, normalization: str) -> str | None:
    if weights is None or normalization not in ("group", "data_init"):
        return None
    return (
        "expected null, as an exported encoder has other layers in place of "
        f'encoder.normalization "{normalization}"; received "{weights}"'
    )


@_check(
    "projector.normalization",
    "projector.hidden_size",
    "projector.output_size",
    "projector.normalize_output",
    "projector.num_layers",
)
def _groups_divide_projector(
    normalization: str, hidden: int, outputs: int, normalize_output: bool, layers: int
) -> str | None:
    widths = {
        "projector.hidden_size": hidden if layers > 1 else None,
        "projector.output_size": outputs if normalize_output else None,
    }
    return _groups_divide(normalization, widths)


@_check(
    "predictor.normalization",
    "predictor.hidden_size",
    "projector.output_size",
    "predictor.normalize_output",
    "predictor.kind",
)
def _groups_divide_predictor(
    normalization: str, hidden: int, outputs: int, normalize_output: bool, kind: str
) -> str | None:
    widths = {
        "predictor.hidden_size": hidden,
        "projector.output_size": outputs if normalize_output else None,
    }
    return None if kind == "none" else _groups_divide(normalization, widths)


def _groups_divide(normalization: str, widths: dict[str, int | None]) -> str | None:
    for key, width in widths.items():
        if normalization == "group" and width is not None and width % GROUPS:
            return (
                f'expected another one, as "group" divides {key} by {GROUPS}, and it is '
                f'{width}; received "group"'
            )
    return None


@_check("predictor.schedule", "predictor.kind")
def _learning_predictor_has_a_schedule(schedule: str | None, kind: str) -> str | None:
    if schedule is None or kind == "mlp":
        return None
    return f'expected null, as predictor.kind "{kind}" learns nothing; received "{schedule}"'


@_check("predictor.learning_rate_multiplier", "predictor.kind")
def _learning_predictor_has_a_rate(rate: float, kind: str) -> str | None:
    if rate == 1.0 or kind == "mlp":
        return None
    return f'expected 1, its default, as predictor.kind "{kind}" learns nothing; received {rate:g}'


@_check("objective.temperature", "objective.negatives")
def _negatives_have_a_temperature(temperature: float | None, negatives: float) -> str | None:
    if negatives and temperature is None:
        return f"missing; expected a number above 0, as objective.negatives is {negatives:g}"
    if not negatives and temperature is not None:
        return f"expected null, as objective.negatives is 0; received {temperature:g}"
    return None


@_check("objective.negatives", "objective.similarity")
def _negatives_are_cosine(negatives: float, similarity: str) -> str | None:
    if not negatives or similarity == "cosine":
        return None
    return (
        f'expected 0, as objective.similarity "{similarity}" knows no negatives; received '
        f"{negatives:g}"
    )


@_check("tau.schedule", "tau.base", "tau.end", "tau.drop_at", "objective.target")
def _only_an_average_has_a_tau(
    schedule: str, base: float, end: float | None, drop_at: float | None, target: str
) -> str | None:
    if target == "ema" or (schedule, base, end, drop_at) == ("cosine", 0.996, None, None):
        return None
    return (
        f'expected no tau, as objective.target "{target}" averages nothing; received '
        f'"{schedule}" from {base:g}'
    )


@_check("tau.end", "tau.schedule", "tau.base")
def _end_is_where_the_schedule_leads(end: float | None, schedule: str, base: float) -> str | None:
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


@_check("tau.drop_at", "tau.schedule")
def _only_drop_drops(drop_at: float | None, schedule: str) -> str | None:
    if drop_at is None or schedule == "drop":
        return None
    return f'expected null, as tau.schedule "{schedule}" drops nothing; received {drop_at:g}'


@_check("optimizer.warmup_epochs", "optimizer.schedule", "training.epochs")
def _warmup_ends(warmup: float, schedule: str, epochs: int) -> str | None:
    if schedule == "cosine" and warmup >= epochs:
        return (
            f"expected fewer than training.epochs ({epochs}), as the cosine follows the "
            f"warm-up; received {warmup:g}"
        )
    if warmup > epochs:
        return f"expected at most training.epochs ({epochs}); received {warmup:g}"
    return None


@_check("training.batch_size", "data.pretrain_images")
def _images_fill_a_batch(batch_size: int, images: int | None) -> str | None:
    if images is None or batch_size <= images:
        return None
    return (
        f"expected at most data.pretrain_images ({images}), or no batch is ever full; received "
        f"{batch_size}"
    )


@_check("devices.tpu", "devices.strategy")
def _name_is_of_a_tpu(tpu: str, strategy: str) -> str | None:
    if tpu == "local" or strategy in ("auto", "tpu"):
        return None
    return (
        f'expected "local", its default, as devices.strategy "{strategy}" uses no TPU; received '
        f'"{tpu}"'
    )


@_check("devices.precision", "devices.strategy")
def _float16_is_fast(precision: str, strategy: str) -> str | None:
    if precision != "mixed_float16" or strategy not in ("cpu", "tpu"):
        return None
    return (
        f'expected "float32" or "mixed_bfloat16", as devices.strategy "{strategy}" has no fast '
        f'float16; received "{precision}"'
    )


@_check("probe.neighbours", "probe.train_images")
def _neighbours_exist(neighbours: int, images: int | None) -> str | None:
    if images is None or neighbours <= images:
        return None
    return f"expected at most probe.train_images ({images}); received {neighbours}"
