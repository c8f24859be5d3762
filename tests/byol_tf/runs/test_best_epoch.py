"""The best epoch, early stopping, and configs that can't compare epochs."""

import json

import pytest

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Monitor
from byol_tf.errors import ConfigError
from byol_tf.runs.best_epoch import best_epoch, check_metric, exported_epoch, stops_early
from tests.helpers.small_run import CONFIG

UNTRAINED = {"epoch": 0, "probe_accuracy": 0.9, "effective_rank": 50.0}


def rows(*accuracies: float | None) -> list[dict[str, float]]:
    """Rows of a run; None for an epoch without a probe."""
    return [UNTRAINED] + [
        {"epoch": epoch} | ({} if accuracy is None else {"probe_accuracy": accuracy})
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


@pytest.mark.parametrize(
    ("accuracies", "stops"),
    [
        ((), False),
        ((0.5, 0.4), False),
        ((0.5, 0.4, 0.5), True),  # as high isn't higher
        ((0.5, 0.4, 0.6), False),
        ((0.5, 0.4, None, 0.6, None, 0.5, None), False),  # probes count, not epochs
        ((0.5, 0.4, None, 0.5), True),
        ((0.5, 0.51, 0.52), True),  # each exceeds the highest by less than min_delta
        ((0.5, 0.51, 0.53), False),
    ],
)
def test_run_stops_after_two_probes_without_improvement(accuracies, stops):
    assert stops_early(rows(*accuracies), Monitor(early_stopping=2, min_delta=0.025)) is stops
    assert not stops_early(rows(*accuracies), Monitor())


def test_best_epoch_is_the_first_of_the_highest_trained_ones():
    assert best_epoch(rows(0.5, 0.7, None, 0.7), "probe_accuracy") == 2
    assert best_epoch(rows(), "probe_accuracy") is None


@pytest.mark.parametrize(("export", "epoch"), [("last", 3), ("best", 2)])
def test_config_says_which_epoch_is_exported(export, epoch):
    config = load_config("demo", ["probe.split=held_out", f"run.export={export}"])
    assert exported_epoch(config, rows(0.5, 0.7, 0.6)) == epoch
    assert exported_epoch(config, rows()) == 0


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("monitor.early_stopping=3", "monitor.early_stopping"),
        ("run.export=best", 'run.export "best'),
    ],
)
def test_epochs_are_not_compared_by_test_labels(override, key, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "config.json", [override])
    assert f'probe.split: expected "held_out", as {key}' in str(error.value)
    for other in ("probe.split=held_out", "monitor.metric=effective_rank"):
        load_config(tmp_path / "config.json", [override, other])


def test_accuracy_of_unlabelled_images_is_no_metric():
    overrides = ["probe.split=held_out", "monitor.early_stopping=3"]
    with pytest.raises(ConfigError, match=r'monitor.metric: expected "effective_rank", as data'):
        check_metric(load_config("demo", overrides), labelled=False)
    check_metric(load_config("demo", overrides), labelled=True)
    check_metric(load_config("demo", [*overrides, "monitor.metric=effective_rank"]), False)
