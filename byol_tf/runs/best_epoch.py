"""The best epoch of a run by `monitor.metric`, and whether the run stops early.

All of it is a function of the config and the history's rows, so that a resumed run stops at the
same epoch with the same best one.
"""

from collections.abc import Sequence

from byol_tf.config.schema import Config, Monitor
from byol_tf.errors import ConfigError

METRICS = {
    "probe_accuracy": "accuracy of the linear probe",
    "knn_accuracy": "accuracy of the nearest neighbours",
    "effective_rank": "effective rank of the representations",
}
"""Values of `monitor.metric`, and their names for people."""

Rows = Sequence[dict[str, float]]
"""Rows of a run's history, that of the untrained network first."""


def check_metric(config: Config, labelled: bool) -> None:
    """Checks that the metric by which epochs or runs are compared can be measured.

    Args:
        config: of the run.
        labelled: whether its source has labelled training images.

    Raises:
        ConfigError: if it needs labels and there are none.
    """
    metric = config.monitor.metric
    if labelled or metric == "effective_rank":
        return
    raise ConfigError(
        f'monitor.metric: expected "effective_rank", as data.source "{config.data.source}" has '
        f'no labelled images here; received "{metric}"'
    )


def compares_epochs(config: Config) -> bool:
    """Returns whether the metric decides anything: when a run stops, or what it exports."""
    return config.monitor.early_stopping is not None or config.run.export == "best"


def scores(rows: Rows, metric: str) -> dict[int, float]:
    """Returns epoch -> value of a metric, for each epoch after which it was measured."""
    return {int(row["epoch"]): row[metric] for row in rows if row["epoch"] > 0 and metric in row}


def best_epoch(rows: Rows, metric: str) -> int | None:
    """Returns the epoch with the highest value, of equal ones the first; None without any."""
    values = scores(rows, metric)
    return max(values, key=values.__getitem__, default=None)


def exported_epoch(config: Config, rows: Rows) -> int:
    """Returns the epoch whose encoder the run exports, as far as its rows go; 0 without epochs."""
    best = best_epoch(rows, config.monitor.metric) if config.run.export == "best" else None
    return int(rows[-1]["epoch"]) if best is None else best


def stops_early(rows: Rows, monitor: Monitor) -> bool:
    """Returns whether a run ends after its last row, by `monitor.early_stopping`."""
    highest, without_improvement = float("-inf"), 0
    for value in scores(rows, monitor.metric).values():
        if value - monitor.min_delta > highest:
            highest, without_improvement = value, 0
        else:
            without_improvement += 1
    return monitor.early_stopping is not None and without_improvement >= monitor.early_stopping
