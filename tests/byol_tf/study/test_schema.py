"""Studies: what a file may hold, how it is planned, and what is wrong with one is said in its
words."""

import json
from pathlib import Path

import pytest

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import ConfigError
from byol_tf.study.plan import plan_study, run_name
from byol_tf.study.schema import load_study, packaged_studies, study_schema_json
from tests.helpers.studies import planned

STUDIES = Path(__file__).resolve().parents[3] / "configs" / "studies"


def test_these_are_the_studies():
    stl10 = [f"stl10-table{number}" for number in range(1, 9)]
    simsiam = [f"simsiam-{letter}" for letter in "abcdef"]
    names = (
        "augmentations",
        "batch-size",
        "encoders",
        "infonce",
        "semi-supervised",
        "tau",
        "transfer",
    )
    byol = [f"byol-{name}" for name in names]
    own = ["few-labels", "few-photos"]
    assert packaged_studies() == sorted(
        [*stl10, *simsiam, *byol, "nobatchstats-table1", "nobatchstats-table2", *own]
    )


def test_the_schema_is_fresh():
    assert (STUDIES / "schema.json").read_text() == study_schema_json(), (
        "write it anew: see docs/studies.md"
    )


def test_file_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_bytes((STUDIES / "simsiam-b.json").read_bytes())
    name, file, study = load_study("~/mine.json")
    assert (name, file) == ("mine", tmp_path / "mine.json")
    assert study == load_study("simsiam-b")[2]


@pytest.mark.parametrize("name", packaged_studies())
class TestEachStudy:
    def test_plans_at_its_scales(self, name):
        for scale in load_study(name)[2].scales:
            cells = planned(name, scale)
            assert len({(each.cell.row, each.cell.column) for each in cells}) == len(cells) > 0
            rows = {each.cell.row for each in cells}
            assert len(rows) > 1, "a table compares"

    def test_rows_and_columns_are_other_experiments(self, name):
        """Two cells with the same config and the same judgement would be one experiment under two
        names."""
        for scale in load_study(name)[2].scales:
            names = [(each.run_name, each.words) for each in planned(name, scale)]
            assert len(set(names)) == len(names)

    def test_small_runs_share_one_base(self, name):
        for each in planned(name, "small"):
            assert each.config.name == "few-photos-byol"
            assert each.config.data.source == "folder"
            assert each.config.training.batch_size <= 512

    def test_says_its_source_and_what_it_takes(self, name):
        _, _, study = load_study(name)
        assert study.source and study.question.endswith(("?", "."))
        assert all(len(scale.budget) > 40 for scale in study.scales.values())


class TestPlanning:
    def test_all_cells_of_a_seed_come_before_the_next_seed(self):
        cells = planned("simsiam-e", seeds=3)
        assert [each.seed for each in cells] == [0, 0, 1, 1, 2, 2]
        assert [each.config.seed for each in cells] == [each.seed for each in cells]

    def test_a_scale_may_judge_all_runs_by_more(self):
        columns = [
            (each.cell.row, each.cell.column, each.words[0])
            for each in planned("stl10-table2", "small")
        ][:4]
        assert columns == [
            (
                "Baseline",
                "supervised-only",
                "supervised",
            ),  # which no run has trained: not judged otherwise
            ("Baseline", "BYOL", "finetune"),
            ("Baseline", "BYOL, probe", "linear"),
            ("No predictor", "BYOL", "finetune"),
        ]
        assert all(
            each.cell.paper is None
            for each in planned("stl10-table2", "small")
            if each.cell.column.endswith("probe")
        )

    def test_rows_can_be_picked(self):
        assert [each.cell.row for each in planned("stl10-table6", only=["0.9", "0.1"])] == [
            "0.1",
            "0.9",
        ]

    def test_overrides_come_last(self):
        assert all(
            each.config.tau.base == 0.5
            for each in planned("stl10-table6", overrides=["tau.base=0.5"])
        )

    def test_a_name_is_what_was_run(self):
        """The digest of results that exist already: a change here would run all of them anew."""
        assert run_name(load_config("demo")) == run_name(
            load_config("demo", ['run.root="elsewhere"'])
        )
        assert run_name(load_config("demo")) != run_name(load_config("demo", ["seed=1"]))
        same_steps = ["data.cache=none", "training.rematerialize=true"]
        assert run_name(load_config("demo")) == run_name(load_config("demo", same_steps))
        assert run_name(load_config("demo")).startswith("demo-")
        assert len(run_name(load_config("demo"))) == len("demo-") + 10


TINY = {
    "title": "Two taus",
    "source": "no paper",
    "question": "Which?",
    "measures": {"linear": {"protocol": "linear", "small": ["--fast"]}},
    "scales": {"small": {"config": "demo", "budget": "a minute"}},
    "cells": [
        {"row": "slow", "set": {"tau.base": 0.99}},
        {"row": "fast", "set": {"tau.base": 0.9}},
    ],
}


def lines(tmp_path, change=None, scale: str = "small", only=()) -> list[str]:
    """What is said of the tiny study after a change: a function of its tree, or a text in place of
    it."""
    file = tmp_path / "mine.json"
    tree = json.loads(json.dumps(TINY))
    if callable(change):
        change(tree)
    file.write_text(change if isinstance(change, str) else json.dumps(tree))
    with pytest.raises(ConfigError) as error:
        _, found, study = load_study(str(file))
        plan_study(found, study, scale, None, only, [])
    return str(error.value).replace(str(file), "mine.json").splitlines()


class TestMistakes:
    def test_an_unknown_row(self, tmp_path):
        assert lines(tmp_path, only=["quick"]) == [
            '--only quick: no such row; the study has "slow", "fast"'
        ]

    def test_a_row_that_another_scale_has(self):
        with pytest.raises(
            ConfigError, match=r'^--only 16: no such row; the study has "64", "128"'
        ):
            planned("simsiam-c", "paper", only=["16"])

    def test_an_unknown_scale(self, tmp_path):
        assert lines(tmp_path, scale="paper") == ["--scale paper: this study has small"]

    def test_a_bad_key_names_the_study_and_the_row(self, tmp_path):
        def change(tree):
            tree["cells"][1]["set"] = {"tau.bose": 0.9}

        assert lines(tmp_path, change) == [
            'mine.json, row "fast": --set tau.bose=0.9: unknown key; did you mean "base" (now '
            "0.99)?"
        ]

    def test_a_mistake_of_the_base_is_said_once(self, tmp_path):
        def change(tree):
            tree["scales"]["small"]["config"] = "demos"

        assert lines(tmp_path, change) == [
            'mine.json: demos: no such file; did you mean "configs/demo.json"?'
        ]

    def test_a_measure_that_is_none(self, tmp_path):
        def change(tree):
            tree["cells"][0]["measure"] = "probe"
            tree["scales"]["small"]["also"] = ["knn"]

        assert lines(tmp_path, change) == [
            'mine.json: cells.0.measure: expected one of linear; received "probe"',
            'mine.json: scales.small.also: expected one of linear; received "knn"',
        ]

    def test_mean_per_class_of_a_protocol_without_it(self, tmp_path):
        def change(tree):
            measures = tree["measures"]
            measures["linear"] = {"protocol": "linear", "figure": "mean_per_class"}
            measures["fast"] = measures["linear"] | {"options": ["--fast"]}

        assert lines(tmp_path, change) == [
            'mine.json: measures.linear.figure: expected "top1" or "top5", as only transfer and '
            "linear --fast measure mean_per_class; received it for linear"
        ]

    def test_a_system_that_is_none(self, tmp_path):
        def change(tree):
            tree["cells"][0]["system"] = "SimCLR"

        assert lines(tmp_path, change) == [
            'mine.json: cells.0.system: expected one of none, as there are none; received "SimCLR"'
        ]

    def test_two_cells_at_one_place(self, tmp_path):
        def change(tree):
            tree["cells"].append({"row": "slow"})

        assert lines(tmp_path, change) == [
            "mine.json: cells.2: there is another cell with this row and column"
        ]

    def test_unknown_and_missing_keys(self, tmp_path):
        def change(tree):
            tree["cells"][0]["sets"] = {}
            del tree["question"]

        assert lines(tmp_path, change) == [
            "mine.json: question: missing",
            "mine.json: cells.0.sets: unknown key",
        ]

    def test_no_json(self, tmp_path):
        (line,) = lines(tmp_path, "{cells}")
        assert (
            line == "mine.json:1:2: invalid JSON: expecting property name enclosed in double quotes"
        )

    def test_no_file(self):
        with pytest.raises(ConfigError) as error:
            load_study("table9.json")
        assert (
            str(error.value) == "table9.json: no such study; those of the package are "
            f"{', '.join(packaged_studies())}"
        )

    def test_a_base_may_lie_beside_the_study(self, tmp_path):
        (tmp_path / "base.json").write_text(
            json.dumps(json.loads(resolved_json(load_config("demo"))) | {"name": "mine"})
        )
        tree = json.loads(json.dumps(TINY))
        tree["scales"]["small"]["config"] = "base.json"
        (tmp_path / "mine.json").write_text(json.dumps(tree))
        _, file, study = load_study(str(tmp_path / "mine.json"))
        assert {each.config.name for each in plan_study(file, study, "small", None, [], [])} == {
            "mine"
        }
