"""A config's model and optimizer."""

from dataclasses import dataclass

import keras
import tensorflow as tf

from byol_tf.config.schedule import Schedule
from byol_tf.config.schema import Config
from byol_tf.devices import on_cpu
from byol_tf.models.byol import BYOL
from byol_tf.models.losses import Objective
from byol_tf.models.networks import build_encoder, mlp_head
from byol_tf.models.optimizers import SLOTS, WarmupSchedule, build_optimizer, exclude_norm_and_bias
from pipelines.policy import ViewPolicy
from pipelines.views.fused import FusedViews


@dataclass(frozen=True)
class Sizes:
    """What the networks of a run come to.

    Attributes:
        parameters: name -> number of trainable parameters, for encoder, projector and predictor.
        checkpoint: bytes of all that a checkpoint holds: networks, target and optimizer.
        encoder: bytes of the encoder's weights.
    """

    parameters: dict[str, int]
    checkpoint: int
    encoder: int


_BYTES = 4  # of a number: weights are float32 in each precision


def build_model(config: Config, cropped: bool = False) -> BYOL:
    """The uncompiled model of a config, drawn from its seed; `cropped`: see `fused_views`."""
    projector, predictor = config.projector, config.predictor
    encoder = build_config_encoder(config)
    head = mlp_head(
        encoder.output_shape[-1],
        projector.hidden_size,
        projector.output_size,
        "projector",
        projector.num_layers,
        projector.normalization,
        projector.normalize_output,
    )
    if predictor.kind == "none":
        tail = None
    else:
        width = projector.output_size
        tail = mlp_head(
            width,
            predictor.hidden_size,
            width,
            "predictor",
            2,
            predictor.normalization,
            predictor.normalize_output,
        )
    return BYOL(
        encoder,
        head,
        tail,
        build_objective(config),
        config.objective.target,
        train_predictor=predictor.kind != "fixed",
        gradient_accumulation_steps=config.training.gradient_accumulation_steps,
        rematerialize=config.training.rematerialize,
        views=fused_views(config, cropped) if views_in_step(config) else None,
        on_nonfinite=config.monitor.on_nonfinite,
    )


def view_policies(config: Config) -> tuple[ViewPolicy, ...]:
    """The policy of each view of an image: two, or four with two draws."""
    return (config.views.first, config.views.second) * (build_objective(config).view_count // 2)


def build_objective(config: Config) -> Objective:
    """What a config compares. Its keys are those of `Objective`, and which network gives the
    targets."""
    return Objective(**config.objective.model_dump(exclude={"target"}))


def views_in_step(config: Config) -> bool:
    """Whether the step makes the views, and not tf.data."""
    return config.views.engine == "fused" and config.views.placement == "step"


def fused_views(config: Config, cropped: bool = False) -> list[FusedViews]:
    """A layer for each view, which makes it inside the step: from uint8 images, or from the crops
    that the host makes of photos of several sizes (`cropped`)."""
    views = config.views
    policies = [policy.without_crop() if cropped else policy for policy in view_policies(config)]
    return [
        FusedViews(policy, views.size, number, views.mean, views.std, exact=views.exact)
        for number, policy in enumerate(policies)
    ]


def compile_model(model: BYOL, config: Config, schedule: Schedule) -> None:
    """Compiles the model of a config with its optimizer, built, for so many steps."""

    def rates(factor: float, kind: str) -> WarmupSchedule:
        return WarmupSchedule(
            factor * schedule.peak_rate, schedule.total_steps, schedule.warmup_steps, kind
        )

    settings, predictor = config.optimizer, config.predictor
    optimizer = build_optimizer(
        settings.name, rates(1.0, settings.schedule), settings.weight_decay, settings.momentum
    )
    exclude_norm_and_bias(optimizer, list(model.parts.values()))
    if predictor.kind == "mlp" and (
        predictor.learning_rate_multiplier != 1.0
        or predictor.schedule not in (None, settings.schedule)
    ):
        optimizer.set_group_rate(
            model.predictor.trainable_variables,
            rates(predictor.learning_rate_multiplier, predictor.schedule or settings.schedule),
        )
    jit = {"auto": "auto", "on": True, "off": False}[config.devices.jit_compile]
    model.compile(
        optimizer,
        jit_compile=jit,
        steps_per_execution=steps_per_execution(config, schedule.steps_per_epoch),
    )
    # Built here, so that a checkpoint can be restored and `fit` needn't take a batch of the stream
    # to find the shapes.
    model.optimizer.build(model.trainable_variables)


def steps_per_execution(config: Config, steps_per_epoch: int) -> int:
    """How many steps run before Python is asked again: the largest divisor of an epoch's steps up
    to what the config allows."""
    limit = config.devices.steps_per_execution or (
        1 if on_cpu(tf.distribute.get_strategy()) else 16
    )
    return max(steps for steps in range(1, limit + 1) if steps_per_epoch % steps == 0)


def build_config_encoder(config: Config) -> keras.Model:
    """The encoder of a config, drawn from its seed."""
    encoder = config.encoder
    return build_encoder(
        encoder.name,
        config.views.size,
        encoder.width,
        encoder.stem,
        encoder.normalization,
        encoder.padding,
    )


def measure_sizes(config: Config) -> Sizes:
    """How large the networks of a config are, on disk too; without the optimizer's variables, of
    which it is known how many there are."""
    model = build_model(config)
    names = {"encoder": config.encoder.name}
    parameters = {
        names.get(name, name): _elements(part.trainable_variables)
        for name, part in model.parts.items()
    }
    numbers = sum(_elements(part.variables) for part in model.parts.values())
    if model.target == "ema":
        numbers += _elements(model.target_encoder.variables) + _elements(
            model.target_projector.variables
        )
    slots = (
        SLOTS[config.optimizer.name]
        if config.optimizer.name != "sgd" or config.optimizer.momentum
        else 0
    )
    numbers += slots * _elements(model.trainable_variables)
    return Sizes(parameters, _BYTES * numbers, _BYTES * _elements(model.encoder.variables))


def _elements(variables: list[keras.Variable]) -> int:
    return sum(variable.shape.num_elements() for variable in variables)
