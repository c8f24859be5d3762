"""Detection of a collapse from an epoch's measures, and its likely cause in the config."""

from byol_tf.config.schema import Config, Objective
from pipelines.policy import ViewPolicy

STD, COSINE = 0.07, 0.995
"""Std below and cosine above these: the projections of different images are one point. Vectors
scattered over the sphere have 1 and 0, a single one has 0 and 1 (SimSiam report, section IV.A).
docs/results has a std of at most 0.054 and a cosine of 0.997 or more of the systems that collapse,
and 0.113 and 0.984 of the nearest that doesn't (BYOL with GN+WS and LARS, which still learns: 19.0
to 27.3)."""
STD_DROP = 0.5
"""Std as a fraction of the untrained network's, at most. Networks without normalisation, or deep
ones, start close to one point themselves, and a slow warm-up leaves them there for a while."""
UNTRAINED_STD = 0.005
"""Std of the untrained network, below which it is no measure of a later one. The measures are taken
in inference mode, and batch normalisation of momentum 0.999, as MobileNetV3's, has the statistics
of an untrained network for thousands of steps: MobileNetV3Small, untrained, has 0.001, and 0.87
with the batch's statistics. The untrained networks of docs/results have 0.158 and more."""
RANK, RANK_STD, RANK_LOSS = 6.0, 0.7, 0.1
"""Effective rank, std and loss below all three: representations use few directions, projections
have moved together, and the loss is a small fraction of that of unrelated vectors. This is the
second form of collapse in docs/results: SimSiam without stop-gradient or without predictor, whose
projections are normalised over the batch, has rank 2.8 to 5.6, std 0.33 to 0.55 and a loss of 2% to
9%. SimSiam itself, which is healthy, has 5.7, 0.59 and 13% to 17% where its rank is lowest, so that
the loss decides. It alone isn't enough either: without augmentation BYOL comes to 2% with rank
66, and GN+WS to 7% with std 0.48 and rank 64."""
_UNRELATED_LOSS = 2.0
"""Value of 2 - 2 cos for unrelated vectors, in each direction."""


def detect_collapse(
    measures: dict[str, float], untrained: dict[str, float], objective: Objective
) -> str | None:
    """Describes the collapse that an epoch's measures show.

    Args:
        measures: `projection_std`, `projection_cosine`, `effective_rank` and `loss` of an epoch.
        untrained: `projection_std` of the network before its first step.
        objective: of the run. With negatives, with cross-entropy, or with a teacher, a small loss
            isn't a collapse's, so that the effective rank isn't considered.

    Returns:
        A clause with the figures that show the collapse, or None where there is none.
    """
    std, cosine, rank = (
        measures[name] for name in ("projection_std", "projection_cosine", "effective_rank")
    )
    if std < STD and cosine <= 0.0:  # the cosine of vectors of length 0 isn't 1
        return (
            f"the projections of all images are zero (std {std:.3f}, cosine {cosine:.4f}), so that "
            "no gradient reaches the encoder"
        )
    start = untrained["projection_std"]
    if std < STD and cosine > COSINE and start >= UNTRAINED_STD and std <= STD_DROP * start:
        return f"all images get nearly the same projection (std {std:.3f}, cosine {cosine:.4f})"
    if objective.negatives or objective.similarity != "cosine" or objective.target == "teacher":
        return None
    directions = 1 if objective.symmetrization == "asymmetric" else 2
    relative_loss = measures["loss"] / (_UNRELATED_LOSS * directions * objective.weight)
    if rank < RANK and std < RANK_STD and relative_loss < RANK_LOSS:
        return (
            f"representations use few directions (effective rank {rank:.1f}), and the loss is "
            f"{relative_loss:.0%} of that of unrelated vectors"
        )
    return None


def likely_cause(config: Config) -> tuple[str, str]:
    """Finds what makes a collapse likely in a config.

    The causes are checked in the order of how certain they are; docs/collapse.md has their
    sources.

    Args:
        config: of the run.

    Returns:
        (cause, what to try), two clauses that name config keys.
    """
    objective, predictor, tau = config.objective, config.predictor, config.tau
    if objective.target == "online_with_gradient" and not objective.negatives:
        return (
            'objective.target "online_with_gradient" without negatives: the loss is smallest where '
            "all projections are equal",
            'objective.target "online" (SimSiam) or "ema" (BYOL), or objective.negatives 1 '
            "(SimCLR)",
        )
    if objective.target == "teacher":
        return _rate_cause(config)
    if predictor.kind == "none" and not objective.negatives:
        return (
            'predictor.kind "none": nothing keeps the online network from agreeing with itself',
            'predictor.kind "mlp"',
        )
    last_head = config.projector if predictor.kind == "none" else predictor
    normalizations = {
        config.encoder.normalization,
        config.projector.normalization,
        last_head.normalization,
    }
    # With BN in the predictor the paper has 61.1 and 62.6% without any in the encoder (table 1).
    if config.encoder.normalization in ("none", "layer") and last_head.normalization != "batch":
        part = "projector" if predictor.kind == "none" else "predictor"
        return (
            f'encoder.normalization "{config.encoder.normalization}" and {part}.normalization '
            f'"{last_head.normalization}": without batch statistics BYOL depends on the initial '
            "weights",
            f'"batch" in the encoder or {part}; or "group" in all parts with optimizer.name "lars" '
            'and tau.base of 0.999; or "data_init"',
        )
    if objective.target == "ema" and (lowest_tau := _lowest_tau(config)) < 0.9:
        return (
            f'tau of {lowest_tau:g} (tau.schedule "{tau.schedule}"): the target follows so fast '
            "that both networks can agree on anything",
            'tau.base of 0.99 or more, without "drop"',
        )
    if "group" in normalizations and config.optimizer.name != "lars":
        return (
            f'normalisation "group" with optimizer.name "{config.optimizer.name}", which changes '
            "biases and normalisation parameters as fast as everything else",
            'optimizer.name "lars" and tau.base of 0.999',
        )
    if not any(_changes_much(view) for view in (config.views.first, config.views.second)):
        return (
            "views with neither a random crop nor a change of colour: both views of an image are "
            "nearly the same",
            "another views.preset; views.first.crop_area from 0.2 or less",
        )
    return _rate_cause(config)


def _rate_cause(config: Config) -> tuple[str, str]:
    rate = f"optimizer.base_learning_rate {config.optimizer.base_learning_rate:g} may be too large"
    if config.optimizer.warmup_epochs == 0:
        return (
            rate + ", all the more without warm-up (optimizer.warmup_epochs 0)",
            "a third of it, and warm-up over a tenth of the epochs",
        )
    others = ", or tau.base closer to 1" if config.objective.target == "ema" else ""
    return rate, f"a third of it{others}"


def _lowest_tau(config: Config) -> float:
    """Returns the tau at which the target is closest to the online network.

    The end of an inverse cosine doesn't count: it comes late, when training is nearly done.
    """
    return 0.0 if config.tau.schedule == "drop" else config.tau.base


def _changes_much(view: ViewPolicy) -> bool:
    """Returns whether a view policy crops or changes colours."""
    return view.crop_area[0] < 0.9 or view.jitter_probability > 0
