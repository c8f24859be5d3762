"""TBD."""

from dataclasses import dataclass

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Steps and rates of a run.

    Attributes:
        steps_per_epoch: full batches in the pre-training images.
        total_steps: optimizer steps of the run.
        warmup_steps: of which the learning rate rises.
        peak_rate: the effective learning rate: base rate x batch / reference batch.
    """

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    peak_rate: float


def training_schedule(config: Config, images: int) -> Schedule:
    """The steps and rates for so many pre-training images. `ConfigError` if they don't fill a
    batch."""
    batch = config.training.batch_size
    steps_per_epoch = images // batch
    if steps_per_epoch == 0:
        raise ConfigError(
            [
                "training.batch_size: expected at most the number of pre-training images, "
                f"{images}; received {batch}"
            ]
        )
    optimizer = config.optimizer
    return Schedule(
        steps_per_epoch=steps_per_epoch,
        total_steps=steps_per_epoch * config.training.epochs,
        warmup_steps=round(optimizer.warmup_epochs * steps_per_epoch),
        peak_rate=optimizer.base_learning_rate
        * (batch / optimizer.reference_batch_size if optimizer.reference_batch_size else 1.0),
    )


def method_name(config: Config) -> str:
    """What a config trains, in a word: `BYOL`, `SimCLR`, `SimSiam`, or `trained` where it is none
    of them."""
    objective, predicts = config.objective, config.predictor.kind == "mlp"
    if objective.target == "ema" and objective.negatives == 0 and predicts:
        return "BYOL"
    if objective.target == "online" and objective.negatives == 0 and predicts:
        return "SimSiam"
    if (
        objective.target == "online_with_gradient"
        and objective.negatives == 1
        and config.predictor.kind == "none"
    ):
        return "SimCLR"
    return "trained"


def check_batch(config: Config, replicas: int, workers: int = 1) -> None:
    """`ConfigError` if so many replicas, on so many machines, don't divide a batch into equal
    parts, and those by the accumulation."""
    batch, parts = config.training.batch_size, config.training.gradient_accumulation_steps
    if batch % (replicas * parts) == 0:
        return
    where = f"{replicas} devices on {workers} machines" if workers > 1 else f"{replicas} devices"
    by = f" x training.gradient_accumulation_steps ({parts})" if parts > 1 else ""
    raise ConfigError(
        [
            f"training.batch_size: expected a multiple of {replicas * parts}, as there are "
            f"{where}{by}; received {batch}"
        ]
    )
