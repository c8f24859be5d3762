"""The cells of packaged studies."""

from byol_tf.study.plan import PlannedCell, plan_study
from byol_tf.study.schema import load_study


def planned(
    name: str, scale: str = "paper", seeds: int | None = 1, only=(), overrides=()
) -> list[PlannedCell]:
    _, file, study = load_study(name)
    return plan_study(file, study, scale, seeds, only, overrides)
