"""The rule of a collapse, held against every run in docs/results, and the causes that it names."""

import csv
from pathlib import Path

import pytest

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config, Objective
from byol_tf.runs.collapse import likely_cause, sign_of_collapse
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
}
"""Run -> the first epoch after which docs/results calls it collapsed."""
FILES = sorted((RESULTS / "cifar10").rglob("*.csv"))


def objective(name: str) -> Objective:
    return (
        Objective(target="online_with_gradient", negatives=1.0, temperature=0.2)
        if name == "simclr"
        else Objective()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_measured_runs(path):
    with path.open() as file:
        untrained, *rows = [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file)
        ]
    signs = [sign_of_collapse(row, untrained, objective(path.stem)) for row in rows]
    first = next((int(row["epoch"]) for row, sign in zip(rows, signs, strict=True) if sign), None)
    assert first == COLLAPSED.get(path.stem)


def test_all_of_them_are_there():
    assert set(COLLAPSED) < {path.stem for path in FILES}
    assert len(FILES) > 16


STUDIES_COLLAPSED = {
    ("nobatchstats-table2", "No BN"),
    ("simsiam-a", "Without stop-gradient"),
    ("simsiam-b", "None"),
    ("stl10-table2", "No predictor"),
}
"""What the papers call collapsed and what docs/results does, by study and row; all seeds of it."""


@pytest.mark.parametrize(
    "path", sorted((RESULTS / "studies").glob("*/results.csv")), ids=lambda path: path.parent.name
)
def test_the_last_epoch_of_each_run_of_the_studies(path):
    name, file, study = load_study(path.parent.name.removesuffix("-12"))
    planned = {
        (each.cell.row, each.seed): each.config
        for each in plan_study(file, study, "small", 3, [], ["data.root=photos"])
    }
    with path.open() as table:
        rows = [row for row in csv.DictReader(table) if row["projection_std"]]
    found, expected = set(), {row for study_name, row in STUDIES_COLLAPSED if study_name == name}
    for row in rows:
        measures = {
            each: float(row[each])
            for each in ("projection_std", "projection_cosine", "effective_rank", "loss")
        }
        sign = sign_of_collapse(
            measures, {"projection_std": 0.8}, planned[row["row"], int(row["seed"])].objective
        )
        assert (sign is not None) == (row["row"] in expected), (row["row"], row["seed"], measures)
        found |= {row["row"]} if sign else set()
    assert rows and found == expected


MEASURES = {
    "projection_std": 0.02,
    "projection_cosine": 0.999,
    "effective_rank": 20.0,
    "loss": 0.01,
}


def test_a_network_that_began_there_has_not_collapsed():
    assert sign_of_collapse(MEASURES, {"projection_std": 0.5}, Objective())
    assert sign_of_collapse(MEASURES, {"projection_std": 0.03}, Objective()) is None


@pytest.mark.parametrize("changed", [{"projection_std": 0.08}, {"projection_cosine": 0.99}])
def test_spread_and_cosine_must_both_show_it(changed):
    assert sign_of_collapse(MEASURES | changed, {"projection_std": 0.5}, Objective()) is None


def test_the_loss_is_judged_by_its_own_weight():
    measures = {
        "projection_std": 0.5,
        "projection_cosine": 0.7,
        "effective_rank": 2.0,
        "loss": 0.25,
    }
    untrained = {"projection_std": 0.5}
    assert "effective rank 2.0" in sign_of_collapse(measures, untrained, Objective())
    assert sign_of_collapse(measures, untrained, Objective(weight=0.25)) is None
    assert sign_of_collapse(measures | {"projection_std": 0.8}, untrained, Objective()) is None
    assert sign_of_collapse(measures, untrained, Objective(symmetrization="asymmetric")) is None
    assert sign_of_collapse(measures, untrained, Objective(similarity="cross_entropy")) is None


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
def test_causes(overrides, cause, remedy):
    found, to_try = likely_cause(config(*overrides))
    assert found.startswith(cause)
    assert remedy in to_try


def test_systems_that_hold_have_no_cause_but_their_rate():
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
