"""Steps and learning rate of a run, derived from its config and the number of its images."""

from dataclasses import dataclass

from byol_tf.config.schema import Config
from byol_tf.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Steps and learning rate of a run.

    Attributes:
        steps_per_epoch: number of full batches in the pre-training images.
        total_steps: number of optimizer steps in the run.
        warmup_steps: number of first steps over which the learning rate rises.
        peak_rate: learning rate after the warm-up: base rate x batch size / reference batch size.
    """

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    peak_rate: float


def training_schedule(config: Config, images: int) -> Schedule:
    """Derives the steps and the learning rate of a run.

    Args:
        config: the config.
        images: number of pre-training images.

    Raises:
        ConfigError: if the images don't fill a batch.
    """
    batch = config.training.batch_size
    steps_per_epoch = images // batch
    if steps_per_epoch == 0:
        raise ConfigError(
            "training.batch_size: expected at most the number of pre-training images, "
            f"{images}; received {batch}"
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
    """Returns the name of the method that a config trains.

    It is `BYOL`, `BYOL with negatives` (the BYOL paper's extended InfoNCE, equation 8, with target
    network and predictor), `SimCLR`, `SimSiam`, `distillation`, or `trained` for a variant without
    a name.
    """
    objective, has_predictor = config.objective, config.predictor.kind == "mlp"
    if objective.target == "teacher":
        return "distillation"
    if objective.target == "ema" and has_predictor:
        return "BYOL with negatives" if objective.negatives else "BYOL"
    if objective.target == "online" and objective.negatives == 0 and has_predictor:
        return "SimSiam"
    if (
        objective.target == "online_with_gradient"
        and objective.negatives == 1
        and config.predictor.kind == "none"
    ):
        return "SimCLR"
    return "trained"


def check_batch(config: Config, replicas: int, workers: int = 1) -> None:
    """Checks that the batch divides into equal micro-batches.

    Args:
        config: the config.
        replicas: number of replicas over all workers.
        workers: number of workers, for the message.

    Raises:
        ConfigError: if replicas x accumulation steps don't divide the batch size.
    """
    batch, accumulation = config.training.batch_size, config.training.gradient_accumulation_steps
    if batch % (replicas * accumulation) == 0:
        return
    devices = f"{replicas} devices" + (f" on {workers} machines" if workers > 1 else "")
    by = f" x training.gradient_accumulation_steps ({accumulation})" if accumulation > 1 else ""
    raise ConfigError(
        f"training.batch_size: expected a multiple of {replicas * accumulation}, as there are "
        f"{devices}{by}; received {batch}"
    )
