"""When a network has collapsed, by what an epoch measures of it, and what in a config makes that
likely. Needs no TensorFlow."""

from byol_tf.config.schema import Config, Objective

SPREAD, COSINE = 0.07, 0.995
"""Below and above: projections of different images are one point. 1 and 0 are vectors scattered
over the sphere, 0 and 1 a single one (SimSiam report, section IV.A). docs/results has 0.053 and
0.997, then less, of five systems that collapse, and 0.100 and 0.988 of the nearest that doesn't
(BYOL with GN+WS and LARS, which still learns: 19.0 to 26.2)."""
FALLEN = 0.5
"""Spread against the untrained network's, at most. Networks without normalisation, or deep ones,
begin close to one point themselves, and a slow warm-up leaves them there for a while."""
RANK, RANK_SPREAD, RANK_LOSS = 6.0, 0.7, 0.1
"""Below all three: representations have few directions left, projections are drawn together, and
the loss, as a share of that of unrelated vectors, is small. The second kind of collapse in
docs/results: SimSiam without stop-gradient or without predictor, whose normalised projections can't
become one point, have rank 2.8 to 5.0, spread 0.38 to 0.55 and 2% to 8%. SimSiam itself, healthy,
has 4.1, 0.91 and 13% where its rank is lowest. A small loss alone is none: without augmentation
BYOL comes to 2% and rank 66; nor is a low spread with one: GN+WS has 0.48, 7% and rank 64."""
_UNRELATED = 2.0
"""Of 2 - 2 cos, in each direction."""


def sign_of_collapse(
    measures: dict[str, float], untrained: dict[str, float], objective: Objective
) -> str | None:
    """What shows a collapse, in words, or None.

    Args:
        measures: `projection_std`, `projection_cosine`, `effective_rank` and `loss` of an epoch.
        untrained: the first of them of the network before its first step.
        objective: of the run: with negatives, or cross-entropy, a loss has another floor, and the
            rank isn't judged.
    """
    spread, cosine, rank = (
        measures[name] for name in ("projection_std", "projection_cosine", "effective_rank")
    )
    if spread < SPREAD and cosine > COSINE and spread <= FALLEN * untrained["projection_std"]:
        return (
            f"all images get nearly the same projection (spread {spread:.3f}, cosine {cosine:.4f})"
        )
    if objective.negatives or objective.similarity != "cosine":
        return None
    directions = 1 if objective.symmetrization == "asymmetric" else 2
    share = measures["loss"] / (_UNRELATED * directions * objective.weight)
    if rank < RANK and spread < RANK_SPREAD and share < RANK_LOSS:
        return (
            f"representations have few directions left (effective rank {rank:.1f}), and the "
            f"loss is {share:.0%} of a scattered one's"
        )
    return None


def likely_cause(config: Config) -> tuple[str, str]:
    """(what makes a collapse likely in this config, what to try), the surest cause first. Sources:
    docs/collapse.md."""
    objective, predictor, tau = config.objective, config.predictor, config.tau
    if objective.target == "online_with_gradient" and not objective.negatives:
        return (
            'objective.target "online_with_gradient" without negatives: the loss is smallest where '
            "all projections are equal",
            'objective.target "online" (SimSiam) or "ema" (BYOL), or objective.negatives 1 '
            "(SimCLR)",
        )
    if predictor.kind == "none" and not objective.negatives:
        return (
            'predictor.kind "none": nothing keeps the online network from agreeing with itself',
            'predictor.kind "mlp"',
        )
    kinds = {"encoder": config.encoder.normalization, "projector": config.projector.normalization}
    if predictor.kind != "none":
        kinds["predictor"] = predictor.normalization
    if config.encoder.normalization in ("none", "layer") or set(kinds.values()) == {"none"}:
        return (
            f'encoder.normalization "{kinds["encoder"]}": without batch statistics BYOL depends on '
            "how its weights were drawn",
            '"batch" in the encoder; or "group" in all parts with optimizer.name "lars" and '
            'tau.base of 0.999; or "data_init"',
        )
    if objective.target == "ema" and (low := _lowest_tau(config)) < 0.9:
        return (
            f'tau of {low:g} (tau.schedule "{tau.schedule}"): the target follows so fast that both '
            "networks can agree on anything",
            'tau.base of 0.99 or more, without "drop"',
        )
    if "group" in kinds.values() and config.optimizer.name != "lars":
        return (
            f'normalisation "group" with optimizer.name "{config.optimizer.name}", which moves '
            "biases and normalisation parameters as "
            "fast as everything else",
            'optimizer.name "lars" and tau.base of 0.999',
        )
    if not any(_changes_much(view) for view in (config.views.first, config.views.second)):
        return (
            "views with neither a random crop nor a change of colour: both views of an image are "
            "nearly the same",
            "another views.preset; views.first.crop_area from 0.2 or less",
        )
    rate = f"optimizer.base_learning_rate {config.optimizer.base_learning_rate:g} may be too large"
    if config.optimizer.warmup_epochs == 0:
        return (
            rate + ", all the more without warm-up (optimizer.warmup_epochs 0)",
            "a third of it, and warm-up over a tenth of the epochs",
        )
    others = ", or tau.base closer to 1" if objective.target == "ema" else ""
    return rate, f"a third of it{others}"


def _lowest_tau(config: Config) -> float:
    """Where the target is nearly the online network. (An inverse cosine comes down late, from a
    base that has done its work by then.)"""
    return 0.0 if config.tau.schedule == "drop" else config.tau.base


def _changes_much(view) -> bool:
    """Whether a view policy crops, or changes colours."""
    return view.crop_area[0] < 0.9 or view.jitter_probability > 0
