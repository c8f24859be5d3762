"""Builds the model and the optimizer of a config."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import keras
import tensorflow as tf

from byol_tf.compat import build_without_values
from byol_tf.config.schedule import Schedule
from byol_tf.config.schema import Config
from byol_tf.constants import ENCODER_KEYS_OF_ANY_NETWORK, ENCODERS, PYTHON_MODEL
from byol_tf.devices import on_cpu
from byol_tf.errors import ConfigError
from byol_tf.models.byol import BYOL
from byol_tf.models.construction import copy_network, freeze_batch_norm, output_width
from byol_tf.models.ema import ScheduledTau
from byol_tf.models.external_encoders import as_encoder, build_external_encoder
from byol_tf.models.inference import inference_model
from byol_tf.models.layer_decay import depth_groups
from byol_tf.models.losses import Objective
from byol_tf.models.networks import build_encoder, mlp_head
from byol_tf.models.optimizers import SLOTS, WarmupSchedule, build_optimizer, exclude_norm_and_bias
from pipelines.policy import ViewPolicy
from pipelines.views.fused import FusedViews


@dataclass(frozen=True)
class Sizes:
    """Sizes of a run's networks.

    Attributes:
        parameters: name -> number of trainable parameters, for encoder, projector and predictor.
        checkpoint: bytes of the arrays in a checkpoint: networks, target and optimizer.
        encoder: bytes of the encoder's weights.
    """

    parameters: dict[str, int]
    checkpoint: int
    encoder: int


_DEVICE_STEPS_PER_EXECUTION = 16
"""Enough to hide Python's time between calls behind an accelerator's steps."""
_BYTES_PER_ELEMENT = 4  # weights are float32 in every precision


GivenEncoder: TypeAlias = keras.Model | Callable[..., keras.Model]
"""A model of one's own, or a function that is called with `image_size` and returns one."""


def build_model(
    config: Config,
    cropped: bool = False,
    given: GivenEncoder | None = None,
    teacher: keras.Model | None = None,
) -> BYOL:
    """Returns the uncompiled model of a config, initialised from its seed.

    Args:
        config: valid.
        cropped: see `fused_views`.
        given: see `build_config_encoder`.
        teacher: from views to `[N, d]`; for `objective.target` `teacher`.
    """
    encoder, projector, predictor = _build_networks(
        config, given, None if teacher is None else teacher.output_shape[-1]
    )
    # Keras can't copy every layer of others, so a target encoder is built as its online one was.
    built_again = config.objective.target == "ema" and config.encoder.name not in ENCODERS
    return BYOL(
        encoder,
        projector,
        predictor,
        build_objective(config),
        config.objective.target,
        train_predictor=config.predictor.kind != "fixed",
        gradient_accumulation_steps=config.training.gradient_accumulation_steps,
        rematerialize=config.training.rematerialize,
        joint_batch_statistics=config.training.joint_batch_statistics,
        views=fused_views(config, cropped) if views_in_step(config) else None,
        on_nonfinite=config.monitor.on_nonfinite,
        target_encoder=build_config_encoder(config, given) if built_again else None,
        teacher=teacher,
    )


def _build_networks(
    config: Config, given: GivenEncoder | None, teacher_width: int | None
) -> tuple[keras.Model, keras.Model, keras.Model | None]:
    """Returns encoder, projector and predictor of a config; None where it has no predictor."""
    encoder = build_config_encoder(config, given)
    if config.encoder.freeze_batch_norm:
        freeze_batch_norm(encoder)
    width = teacher_width or config.projector.output_size
    settings = config.projector.model_dump() | {"output_size": width}
    projector = mlp_head(output_width(encoder, "encoder"), name="projector", **settings)
    if config.predictor.kind == "none":
        return encoder, projector, None
    settings = config.predictor.model_dump(exclude={"kind", "learning_rate_multiplier", "schedule"})
    predictor = mlp_head(width, output_size=width, name="predictor", **settings)
    predictor.trainable = config.predictor.kind != "fixed"
    return encoder, projector, predictor


def tau_schedule(config: Config, total_steps: int) -> ScheduledTau:
    """Returns the schedule of a config's tau over the optimizer steps of a run."""
    tau = config.tau
    name = "cosine" if tau.schedule == "inverse_cosine" else tau.schedule
    return ScheduledTau(name, tau.base, total_steps, tau.resolved_end, tau.resolved_drop_at)


def view_policies(config: Config) -> tuple[ViewPolicy, ...]:
    """Returns the policy of each view of an image: two, or four for an objective of two pairs."""
    return (config.views.first, config.views.second) * (build_objective(config).view_count // 2)


def build_objective(config: Config) -> Objective:
    """Returns the loss of a config, whose keys are those of `Objective` and `target`."""
    return Objective(**config.objective.model_dump(exclude={"target", "teacher"}))


def views_in_step(config: Config) -> bool:
    """Returns whether the training step makes the views, instead of tf.data."""
    return config.views.engine == "fused" and config.views.placement == "step"


def fused_views(config: Config, cropped: bool = False) -> list[FusedViews]:
    """Returns a layer for each view, which makes it inside the step.

    Args:
        config: valid.
        cropped: the layers take crops, which the host makes of photos of several sizes, instead of
            uint8 images.
    """
    views = config.views
    size, mean, std = views.preparation
    policies = [policy.without_crop() if cropped else policy for policy in view_policies(config)]
    return [
        FusedViews(policy, size, view, mean, std, exact=views.exact)
        for view, policy in enumerate(policies)
    ]


def compile_model(model: BYOL, config: Config, schedule: Schedule) -> None:
    """Compiles the model of a config with its optimizer, which is built too.

    Args:
        model: of `build_model`.
        config: valid.
        schedule: of the training steps.
    """

    def rates(factor: float, decay: str, frozen_steps: int = 0) -> WarmupSchedule:
        return WarmupSchedule(
            factor * schedule.peak_rate,
            schedule.total_steps,
            schedule.warmup_steps,
            decay,
            frozen_steps,
        )

    settings, predictor = config.optimizer, config.predictor
    optimizer = build_optimizer(
        settings.name,
        rates(1.0, settings.schedule),
        settings.weight_decay,
        settings.momentum,
        settings.exclude_norm_and_bias,
    )
    if settings.exclude_norm_and_bias:
        exclude_norm_and_bias(optimizer, list(model.networks.values()))
    if settings.layer_decay != 1.0 or config.encoder.frozen_epochs:
        frozen_steps = round(config.encoder.frozen_epochs * schedule.steps_per_epoch)
        for distance, group in enumerate(reversed(depth_groups(model.encoder)), start=1):
            factor = settings.layer_decay**distance
            optimizer.set_group_rate(group, rates(factor, settings.schedule, frozen_steps))
    if (
        model.predictor is not None
        and predictor.kind == "mlp"
        and (
            predictor.learning_rate_multiplier != 1.0
            or predictor.schedule not in (None, settings.schedule)
        )
    ):
        optimizer.set_group_rate(
            model.predictor.trainable_variables,
            rates(predictor.learning_rate_multiplier, predictor.schedule or settings.schedule),
        )
    jit: dict[str, bool | str] = {"auto": "auto", "on": True, "off": False}
    model.compile(
        optimizer,
        jit_compile=jit[config.devices.jit_compile],
        steps_per_execution=steps_per_execution(config, schedule.steps_per_epoch),
    )


def steps_per_execution(config: Config, steps_per_epoch: int) -> int:
    """Returns the steps of one compiled call.

    The largest divisor of an epoch's steps up to `devices.steps_per_execution`, by default 1 on a
    CPU and `_DEVICE_STEPS_PER_EXECUTION` elsewhere.
    """
    limit = config.devices.steps_per_execution or (
        1 if on_cpu(tf.distribute.get_strategy()) else _DEVICE_STEPS_PER_EXECUTION
    )
    most = min(limit, steps_per_epoch)
    return max(steps for steps in range(1, most + 1) if steps_per_epoch % steps == 0)


def build_config_encoder(config: Config, given: GivenEncoder | None = None) -> keras.Model:
    """Returns the encoder of a config, initialised from its seed.

    Args:
        config: valid. A `MODULE:FUNCTION` that it names is imported and called.
        given: the encoder of a config whose `encoder.name` is `PYTHON_MODEL`.

    Raises:
        ConfigError: if there is no such encoder, or it doesn't take the config's images.
    """
    encoder, views = config.encoder, config.views
    if encoder.name in ENCODERS:
        settings = encoder.model_dump(exclude=ENCODER_KEYS_OF_ANY_NETWORK)
        return build_encoder(image_size=views.size, channels=config.data.channels, **settings)
    try:
        if encoder.name != PYTHON_MODEL:
            return build_external_encoder(encoder.name, *views.preparation)
        if given is None:
            raise ValueError("expected the model in Python, Experiment(config, encoder=...)")
        own = (
            copy_network(given, "encoder")  # into the strategy's scope
            if isinstance(given, keras.Model)
            else given(image_size=views.size)
        )
        return as_encoder(own, *views.preparation)
    except ValueError as error:
        raise ConfigError(f'encoder.name: "{encoder.name}": {error}') from error


def config_inference_model(encoder: keras.Model, config: Config) -> keras.Model:
    """Returns the inference model of a config (see `inference.py`).

    Args:
        encoder: the config's, for views; its layers are shared.
        config: valid.

    Raises:
        ConfigError: if the encoder doesn't take images of `encoder.inference_size`.
    """
    try:
        return inference_model(encoder, *config.inference_preparation, config.data.depth)
    except ValueError as error:
        raise ConfigError(f"encoder.inference_size: {error}") from error


def measure_sizes(
    config: Config, given: GivenEncoder | None = None, teacher_width: int | None = None
) -> Sizes:
    """Returns the sizes of a config's networks, without memory for their variables.

    Args:
        config: valid.
        given: see `build_config_encoder`.
        teacher_width: of the representations of `objective.teacher`.

    Raises:
        ConfigError: if an encoder doesn't take the config's images.
    """

    def build() -> tuple[keras.Model, keras.Model, keras.Model | None]:
        built = _build_networks(config, given, teacher_width)
        config_inference_model(built[0], config)  # now, not after the plan
        return built

    encoder, projector, predictor = build_without_values(build)
    networks = {config.encoder.name: encoder, "projector": projector}
    if predictor is not None:
        networks["predictor"] = predictor
    parameters = {
        name: _elements(network.trainable_variables) for name, network in networks.items()
    }
    targets = (encoder, projector) if config.objective.target == "ema" else ()
    elements = sum(_elements(network.variables) for network in (*networks.values(), *targets))
    slots = (
        SLOTS[config.optimizer.name]
        if config.optimizer.name != "sgd" or config.optimizer.momentum
        else 0
    )
    elements += slots * sum(parameters.values())
    return Sizes(
        parameters,
        _BYTES_PER_ELEMENT * elements,
        _BYTES_PER_ELEMENT * _elements(encoder.variables),
    )


def _elements(variables: list[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)
