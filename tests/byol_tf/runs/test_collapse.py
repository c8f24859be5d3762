"""Collapse detection on every run in docs/results, and the causes that it names."""

import csv
from pathlib import Path

import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config, Objective
from byol_tf.models.losses import mean_cosine, projection_std
from byol_tf.runs.collapse import detect_collapse, likely_cause
from byol_tf.study.plan import plan_study
from byol_tf.study.schema import load_study

RESULTS = Path(__file__).parents[3] / "docs" / "results"
COLLAPSED = {
    "no-predictor": 1,
    "byol-gn-ws": 1,
    "byol-no-norm": 1,
    "simsiam-no-stop-gradient": 2,
    "simsiam-no-stop-gradient-plain": 1,
    "byol-no-target-no-predictor": 1,
    "photos-simsiam-no-predictor-seed-0": 4,
    "photos-simsiam-no-stop-gradient-seed-0": 3,
}
"""Run -> the first epoch after which docs/results calls it collapsed."""
FILES = sorted((*(RESULTS / "cifar10").rglob("*.csv"), *(RESULTS / "collapse").glob("*.csv")))


def objective(name: str) -> Objective:
    if name == "simclr":
        return Objective(target="online_with_gradient", negatives=1.0, temperature=0.2)
    return Objective(weight=0.25 if name.startswith("photos-simsiam") else 1.0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_run_collapses_when_docs_say_so(path):
    with path.open() as file:
        untrained, *rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    collapsed_epochs = [
        int(row["epoch"])
        for row in rows
        if detect_collapse(row, untrained, objective(path.stem)) is not None
    ]
    assert min(collapsed_epochs, default=None) == COLLAPSED.get(path.stem)


def test_every_collapsed_run_has_a_file():
    assert set(COLLAPSED) < {path.stem for path in FILES}
    assert len(FILES) > 16


STUDIES_COLLAPSED = {
    ("nobatchstats-table2", "No BN"),
    ("simsiam-a", "Without stop-gradient"),
    ("simsiam-b", "None"),
    ("stl10-table2", "No predictor"),
}
"""(study, row) that the papers or docs/results call collapsed, with all seeds."""


@pytest.mark.parametrize(
    "path", sorted((RESULTS / "studies").glob("*/results.csv")), ids=lambda path: path.parent.name
)
def test_study_runs_collapse_when_docs_say_so(path):
    name, file, study = load_study(path.parent.name.removesuffix("-12"))
    planned = {
        (planned_run.cell.row, planned_run.seed): planned_run.config
        for planned_run in plan_study(file, study, "small", 3, [], ["data.root=photos"])
    }
    with path.open() as table:
        rows = [row for row in csv.DictReader(table) if row["projection_std"]]
    collapsed, expected = (
        set(),
        {row for study_name, row in STUDIES_COLLAPSED if study_name == name},
    )
    for row in rows:
        measures = {
            measure: float(row[measure])
            for measure in ("projection_std", "projection_cosine", "effective_rank", "loss")
        }
        collapse = detect_collapse(
            measures, {"projection_std": 0.8}, planned[row["row"], int(row["seed"])].objective
        )
        assert (collapse is not None) == (row["row"] in expected), (
            row["row"],
            row["seed"],
            measures,
        )
        collapsed |= {row["row"]} if collapse else set()
    assert rows and collapsed == expected


MEASURES = {
    "projection_std": 0.02,
    "projection_cosine": 0.999,
    "effective_rank": 20.0,
    "loss": 0.01,
}


def test_network_that_started_there_has_not_collapsed():
    assert detect_collapse(MEASURES, {"projection_std": 0.5}, Objective())
    assert detect_collapse(MEASURES, {"projection_std": 0.03}, Objective()) is None


def test_one_point_before_training_is_no_measure_of_a_later_one():
    """MobileNetV3Small, whose batch normalisation hardly moves its statistics in so few steps."""
    measures = {
        "projection_std": 3.4e-07,
        "projection_cosine": 1.0,
        "effective_rank": 161.5,
        "loss": 2.4855,
    }
    assert detect_collapse(measures, {"projection_std": 0.0005}, Objective()) is None


@pytest.mark.parametrize("changed", [{"projection_std": 0.08}, {"projection_cosine": 0.99}])
def test_std_and_cosine_must_both_show_it(changed):
    assert detect_collapse(MEASURES | changed, {"projection_std": 0.5}, Objective()) is None


@pytest.mark.parametrize("untrained", [0.5, 0.0])
def test_projections_of_zero_are_a_collapse(untrained):
    """The cosine of vectors of length 0 isn't 1, and their loss is 0 for ever."""
    zeros = tf.zeros((512, 128))
    measures = MEASURES | {
        "projection_std": float(projection_std(zeros)),
        "projection_cosine": float(mean_cosine(zeros)),
    }
    text = detect_collapse(measures, {"projection_std": untrained}, Objective())
    assert "projections of all images are zero" in text


def test_loss_is_relative_to_its_weight():
    measures = {
        "projection_std": 0.5,
        "projection_cosine": 0.7,
        "effective_rank": 2.0,
        "loss": 0.25,
    }
    untrained = {"projection_std": 0.5}
    assert "effective rank 2.0" in detect_collapse(measures, untrained, Objective())
    assert detect_collapse(measures, untrained, Objective(weight=0.25)) is None
    assert detect_collapse(measures | {"projection_std": 0.8}, untrained, Objective()) is None
    assert detect_collapse(measures, untrained, Objective(symmetrization="asymmetric")) is None
    assert detect_collapse(measures, untrained, Objective(similarity="cross_entropy")) is None


def config(*overrides: str) -> Config:
    return load_config(None, list(overrides))


NO_NORMALIZATION = [f"{part}.normalization=none" for part in ("encoder", "projector", "predictor")]
GROUP = [
    "encoder.width=2",
    *(f"{part}.normalization=group" for part in ("encoder", "projector", "predictor")),
]


@pytest.mark.parametrize(
    ("overrides", "cause", "remedy"),
    [
        (["predictor.kind=none"], "predictor.kind", "mlp"),
        (["objective.target=online_with_gradient", "tau={}"], "objective.target", "SimSiam"),
        (NO_NORMALIZATION, "encoder.normalization", "data_init"),
        (GROUP, "normalisation", "lars"),
        (["tau.schedule=constant", "tau.base=0.1"], "tau of 0.1", "0.99"),
        (["tau.schedule=drop"], "tau of 0", "drop"),
        (['views={"size":32,"preset":"none"}'], "views", "views.preset"),
        (["optimizer.warmup_epochs=0"], "optimizer.base_learning_rate 0.002", "warm-up"),
        ([], "optimizer.base_learning_rate 0.002", "tau.base"),
    ],
)
def test_likely_cause_and_remedy(overrides, cause, remedy):
    found_cause, found_remedy = likely_cause(config(*overrides))
    assert found_cause.startswith(cause)
    assert remedy in found_remedy


@pytest.mark.parametrize("normalization", ["none", "layer"])
def test_encoder_without_batch_norm_is_no_cause_if_the_predictor_has_it(normalization):
    """61.1 and 62.6% in the paper without batch statistics, table 1."""
    changes = [f"encoder.normalization={normalization}", "projector.normalization=none"]
    assert likely_cause(config(*changes))[0].startswith("optimizer.base_learning_rate")
    cause, _ = likely_cause(config(*changes, "predictor.normalization=layer"))
    assert 'predictor.normalization "layer"' in cause


def test_stable_systems_have_no_cause_but_their_learning_rate():
    simclr = [
        "objective.target=online_with_gradient",
        "tau={}",
        "predictor.kind=none",
        "objective.negatives=1",
        "objective.temperature=0.2",
    ]
    for overrides in (
        [],
        ["objective.target=online", "tau={}"],
        simclr,
        ["tau.schedule=inverse_cosine", "tau.base=0.999"],
    ):
        assert likely_cause(config(*overrides))[0].startswith("optimizer.base_learning_rate")


@pytest.mark.parametrize("path", sorted((RESULTS / "collapse").glob("*.csv")), ids=lambda p: p.stem)
def test_both_samples_show_the_same(path):
    """Collapse is detected at the same epochs on the first 512 images and on a random sample."""
    prefix = "first_512_"
    with path.open() as file:
        rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    first_rows = [
        row | {name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)}
        for row in rows
    ]
    detected = [
        [detect_collapse(row, table[0], objective(path.stem)) is not None for row in table[1:]]
        for table in (rows, first_rows)
    ]
    assert detected[0] == detected[1]
