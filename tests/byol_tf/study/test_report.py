"""Tables and sentences against hand-made outcomes; means and spreads against NumPy."""

import csv
import dataclasses
import io
import re
import zlib

import numpy as np
import pytest

from byol_tf.config.loading import load_config
from byol_tf.study.figures import bars_figure
from byol_tf.study.plan import PlannedCell
from byol_tf.study.report import draw_report, order_sentence, report_table, write_report
from byol_tf.study.results import group_by_cell, group_by_run
from byol_tf.study.runner import Outcome
from byol_tf.study.schema import Cell, Study
from tests.helpers.markdown import unpadded

LINEAR = ("linear", "--fast")


def study(**changes) -> Study:
    tree = {
        "title": "A table",
        "source": "No one, table 1",
        "question": "Which?",
        "measures": {
            "linear": {"protocol": "linear", "options": ["--fast"]},
            "knn": {"protocol": "knn"},
        },
        "scales": {"small": {"config": "demo", "budget": "Minutes."}},
        "cells": [{"row": "a"}],
    }
    return Study.model_validate(tree | changes)


def outcomes(
    row: str,
    values,
    column: str = "",
    paper: float | None = None,
    run: str | None = None,
    words=LINEAR,
    **more,
) -> list[Outcome]:
    """One cell's, a value a seed; None is not yet there. Cells that name the same `run` judge the
    same one."""
    cell = Cell(
        row=row, column=column, measure=words[0], paper=paper, paper_says=more.pop("says", None)
    )
    tau = zlib.crc32(f"{run or row}/{run or column}".encode()) % 9973 / 1e4
    made = []
    for seed, value in enumerate(values):
        config = load_config("demo", [f"seed={seed}", f"tau.base={tau}", "tau.schedule=constant"])
        planned = PlannedCell(cell, seed, config, {}, words, more.get("figure", "top1"))
        result = {"probe_accuracy": value / 100, "loss": 1.0} if value is not None else {}
        made.append(
            Outcome(
                planned,
                value,
                more.get("result", result),
                more.get("history", ()),
                more.get("error", ""),
            )
        )
    return made


def table(found: list[Outcome], tmp_path, **changes) -> list[str]:
    """The lines of the table itself."""
    text = unpadded(report_table(study(**changes), found))
    return [line for line in text.splitlines() if line.startswith("|")]


class TestSpread:
    @pytest.mark.parametrize("values", [[70.0], [70.0, 72.5], [61.25, 64.5, 59.75, 63.0]])
    def test_is_the_sample_standard_deviation(self, values):
        (found,) = group_by_cell(outcomes("a", values))
        assert found.mean == pytest.approx(np.mean(values))
        if len(values) == 1:
            assert found.std is None and found.text == "70.0"
        else:
            assert found.std == pytest.approx(np.std(values, ddof=1))
            assert found.text == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"

    def test_a_seed_that_is_not_yet_there_is_left_out(self):
        (found,) = group_by_cell(outcomes("a", [70.0, None, 74.0]))
        assert (found.values, found.mean) == ((70.0, 74.0), 72.0)

    def test_without_any_it_says_why(self):
        assert group_by_cell(outcomes("a", [None]))[0].text == "not yet"
        assert (
            group_by_cell(outcomes("a", [None], error="training ended with 1"))[0].text == "failed"
        )


class TestOrderSentence:
    def test_counts_pairs(self):
        found = group_by_cell(
            outcomes("a", [70.0], paper=71.0)
            + outcomes("b", [60.0], paper=59.0)
            + outcomes("c", [65.0], paper=50.0)
        )
        assert (
            order_sentence(found)
            == "The paper's order holds in 2 of 3 pairs that share a row or a column. Not in: b / "
            "c."
        )

    def test_agrees_with_numpy(self):
        draw = np.random.default_rng(0)
        ours, papers = draw.uniform(10, 90, 12), draw.permutation(12).astype(float)
        found = group_by_cell(
            [
                one
                for name, (x, y) in enumerate(zip(ours, papers, strict=True))
                for one in outcomes(str(name), [x], paper=y)
            ]
        )
        first, second = np.triu_indices(12, 1)
        holds = (
            np.sign(ours[first] - ours[second]) == np.sign(papers[first] - papers[second])
        ).sum()
        assert f"holds in {holds} of {len(first)} pairs" in order_sentence(found)

    def test_pairs_that_seeds_tell_apart_are_counted_again(self):
        found = group_by_cell(
            outcomes("a", [70, 71], paper=9)
            + outcomes("b", [60, 61], paper=8)
            + outcomes("c", [60.2, 61.4], paper=8.5)
        )
        assert order_sentence(found) == (
            "The paper's order holds in 3 of 3 pairs that share a row or a column; "
            "of the 2 that are further apart here than both spreads together, in 2."
        )

    def test_rows_and_columns_are_compared_but_not_across(self):
        found = (
            outcomes("a", [70.0], "x", 71.0)
            + outcomes("a", [60.0], "y", 75.0)
            + outcomes("b", [80.0], "y", 76.0)
        )
        assert order_sentence(group_by_cell(found)) == (
            "The paper's order holds in 1 of 2 pairs that share a row or a column. Not in: a: x / "
            "y."
        )
        apart = group_by_cell(outcomes("a", [70.0], "x", 71.0) + outcomes("b", [60.0], "y", 75.0))
        assert order_sentence(apart) == ""

    def test_many_are_counted_not_named(self):
        found = group_by_cell(
            [
                one
                for number in range(6)
                for one in outcomes(str(number), [float(number)], "x", paper=-float(number))
            ]
        )
        sentence = order_sentence(found)
        assert sentence.startswith(
            "The paper's order holds in 0 of 15 pairs that share a row or a column. Not in: x: 0 / "
            "1; x: 0 / 2;"
        )
        assert sentence.endswith("; 8 others.")

    def test_equal_figures_have_no_order(self):
        same = group_by_cell(outcomes("a", [70.0], paper=71.0) + outcomes("b", [60.0], paper=71.0))
        assert order_sentence(same) == ""
        tied = group_by_cell(outcomes("a", [60.0], paper=72.0) + outcomes("b", [60.0], paper=71.0))
        assert (
            order_sentence(tied)
            == "The paper's order holds in 0 of 1 pairs that share a row or a column. Not in: a / "
            "b."
        )


class TestTable:
    def test_has_the_papers_figure_beside_ours(self, tmp_path):
        found = outcomes("a", [70.04], paper=71.0, says="best") + outcomes("b|c", [60.06])
        assert table(found, tmp_path) == [
            "| | paper | here | the paper says |",
            "|---|---|---|---|",
            "| a | 71.0 | 70.0 | best |",
            "| b\\|c | | 60.1 | |",
        ]

    def test_columns_without_a_figure_of_the_paper_have_ours_alone(self, tmp_path):
        found = (
            outcomes("a", [70.0], "full", 71.3)
            + outcomes("a", [50.0], "full, knn", words=("knn",))
            + outcomes("b", [40.0], "full, knn")
        )
        assert table(found, tmp_path) == [
            "| | full: paper | full: here | full, knn: here |",
            "|---|---|---|---|",
            "| a | 71.3 | 70.0 | 50.0 |",
            "| b | | | 40.0 |",
        ]

    def test_the_note_says_what_the_figures_are(self, tmp_path):
        found = (
            outcomes("a", [70.0, 71.0])
            + outcomes("b", [70.0, None])
            + outcomes("a", [1.0, 2.0], "knn", words=("knn",))
        )
        text = report_table(study(), found)
        assert (
            "Top-1 in %, mean and standard deviation over 1 to 2 seeds (linear: linear --fast; "
            "knn: knn)." in text
        )

    def test_the_file_has_command_budget_and_failures(self, tmp_path):
        found = outcomes("a", [70.0]) + outcomes(
            "b", [None], error="training ended with 1: no luck (see b.log)"
        )
        write_report(tmp_path, study(), "small", found, "python -m byol_tf.study x")
        text = (tmp_path / "table.md").read_text()
        assert text.startswith(
            "# A table\n\nWhich?\n\nPaper: No one, table 1. Scale: small. Run here: 2 runs of 24 epochs. "
            "Minutes.\n\n```sh\npython -m byol_tf.study x\n```\n"
        )
        assert "\n* failed: b, seed 0: training ended with 1: no luck (see b.log)\n" in text

    def test_budget_of_other_epochs_is_not_printed(self, tmp_path):
        overrides = ("data.root=photos", "training.epochs=24")
        write_report(tmp_path, study(), "small", outcomes("a", [70.0]), "x", overrides)
        text = (tmp_path / "table.md").read_text()
        assert "Run here: 1 run of 24 epochs. Changed by --set: training.epochs=24.\n" in text
        assert "Minutes." not in text

    def test_latex_and_csv_have_the_same_table(self, tmp_path):
        found = [
            *outcomes("50% & more", [70.0, 72.0], paper=71.3),
            *(dataclasses.replace(each, test_images=100) for each in outcomes("b_c", [40.0])),
        ]
        write_report(tmp_path, study(), "small", found, "x")
        assert (tmp_path / "table.tex").read_text().splitlines() == [
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r" & paper & here \\",
            r"\midrule",
            r"50\% \& more & 71.3 & 71.0 $\pm$ 1.4 \\",
            r"b\_c &  & 40.0 [30.9, 49.8] \\",
            r"\bottomrule",
            r"\end{tabular}",
        ]
        assert list(csv.reader(io.StringIO((tmp_path / "table.csv").read_text()))) == [
            ["row", "column", "measure", "seeds", "mean", "std", "low", "high", "paper"],
            ["50% & more", "", "linear", "2", "71.00", "1.41", "", "", "71.30"],
            ["b_c", "", "linear", "1", "40.00", "", "30.94", "49.80", ""],
        ]
        assert "In brackets: 95% interval" in (tmp_path / "table.md").read_text()

    def test_runs_are_named_once_with_means_over_their_seeds(self, tmp_path):
        results = {
            "probe_accuracy": 0.5,
            "projection_std": 0.123,
            "effective_rank": 7.0,
            "loss": 2.0,
        }
        found = (
            outcomes("a", [70.0, 72.0], run="one")
            + outcomes("a", [60.0, 61.0], "knn", run="one")
            + outcomes("b", [1.0], result=results)
        )
        write_report(tmp_path, study(), "small", found, "x")
        lines = (tmp_path / "table.md").read_text().split("What became of the runs")[1].splitlines()
        rows = [
            [text.strip() for text in line.split("|")[1:-1]]
            for line in lines
            if re.match(r"\| [ab]", line)
        ]
        assert rows == [
            ["a", "", "71.0", "", "", "", "", "", "1.000"],
            ["b", "", "50.0", "", "", "0.12", "", "7.0", "2.000"],
        ]

    def test_figures_other_than_top1_are_named(self, tmp_path):
        pets = {"protocol": "transfer", "figure": "mean_per_class"}
        of = study(measures={"linear": {"protocol": "linear"}, "pets": pets})
        found = outcomes("a", [70.0], words=("pets",), figure="mean_per_class")
        write_report(tmp_path, of, "small", found, "x")
        assert (
            "Mean per class in %, mean over 1 seed (pets: pets, mean per class)."
            in (tmp_path / "table.md").read_text()
        )
        write_report(tmp_path, of, "small", [*found, *outcomes("b", [60.0])], "x")
        assert (
            "Accuracy in %, mean over 1 seed (linear: linear --fast; pets: pets, mean per"
            in (tmp_path / "table.md").read_text()
        )
        rows = csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text()))
        assert [row["figure"] for row in rows] == ["mean_per_class", "top1"]

    def test_results_have_a_line_a_cell_and_seed(self, tmp_path):
        write_report(tmp_path, study(), "small", outcomes("a, b", [70.0, None], paper=71.3), "x")
        rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
        assert [
            (row["row"], row["seed"], row["accuracy"], row["paper"], row["command"]) for row in rows
        ] == [
            ("a, b", "0", "70.0000", "71.3", "linear --fast"),
            ("a, b", "1", "", "71.3", "linear --fast"),
        ]


class TestNamesOfRuns:
    def names(self, *found: list[Outcome]) -> list[str]:
        return list(group_by_run(group_by_cell([one for each in found for one in each])))

    def test_a_run_has_its_rows_name(self):
        assert self.names(
            outcomes("a", [1.0], run="x"),
            outcomes("a", [1.0], "knn", run="x"),
            outcomes("b", [1.0]),
        ) == ["a", "b"]

    def test_with_its_column_where_a_row_has_several_runs(self):
        assert self.names(outcomes("a", [1.0], "only"), outcomes("a", [1.0], "removed")) == [
            "a, only",
            "a, removed",
        ]

    def test_or_its_column_where_several_rows_judge_it(self):
        full = [outcomes(row, [1.0], "full byol", run="full") for row in "ab"]
        half = [outcomes(row, [1.0], "half byol", run="half") for row in "ab"]
        assert self.names(*full, *half) == ["full byol", "half byol"]

    def test_or_its_recipes_where_they_share_neither(self):
        assert self.names(
            outcomes("a", [1.0], "x", run="one"), outcomes("b", [1.0], "y", run="one")
        ) == ["demo"]
        also = outcomes("b", [1.0], "x, knn", run="one", words=("knn",))
        assert self.names(outcomes("a", [1.0], "x", run="one"), also) == ["x"]

    def test_what_is_trained_from_scratch_is_no_run(self):
        assert self.names(
            outcomes("a", [1.0], "none", run="x", words=("supervised",)),
            outcomes("a", [1.0], "byol", run="x"),
        ) == ["a"]


def test_bars_mark_chance_and_the_untrained_network(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "byol_tf.study.figures.save_figure", lambda figure, path: drawn.append(figure)
    )
    result = {"untrained_probe_accuracy": 0.2}
    found = outcomes("a", [50.0], result=result)
    found += outcomes("b", [60.0], words=("finetune",), result=result)
    found = [dataclasses.replace(each, test_images=100, chance=0.1) for each in found]
    bars_figure(tmp_path / "bars.png", "A table", group_by_cell(found))
    axis = drawn[0].axes[0]
    positions = [tuple(line.get_xdata()) for line in axis.lines]
    assert (10.0, 10.0) in positions
    assert positions.count((20.0,)) == 1  # fine-tuning has no untrained counterpart
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [
        "chance: always the most frequent class",
        "the untrained network, by the run's own probe (bars without: not measured)",
        "95% interval, from the test images",
    ]


def test_bars_of_different_images_have_no_line_of_chance(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "byol_tf.study.figures.save_figure", lambda figure, path: drawn.append(figure)
    )
    photos, digits = outcomes("a", [50.0], "photos"), outcomes("a", [60.0], "digits")
    found = [dataclasses.replace(photos[0], chance=0.3), dataclasses.replace(digits[0], chance=0.1)]
    bars_figure(tmp_path / "bars.png", "A table", group_by_cell(found))
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["photos", "digits"]


def test_unnamed_column_is_labelled_by_its_measure(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "byol_tf.study.figures.save_figure", lambda figure, path: drawn.append(figure)
    )
    bars_figure(
        tmp_path / "bars.png",
        "A table",
        group_by_cell([*outcomes("a", [50.0]), *outcomes("a", [40.0], "of few", words=("knn",))]),
    )
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["linear", "of few"]


def test_figures_mark_each_row_within_the_canvas(tmp_path, monkeypatch):
    """Many rows, long names: every label is there, and lies within what is saved."""
    import matplotlib.pyplot as plt

    drawn = {}

    def keep(figure, path):
        figure.canvas.draw()
        drawn[path.name] = figure

    monkeypatch.setattr("byol_tf.study.figures.save_figure", keep)
    monkeypatch.setattr("byol_tf.runs.plots.save_figure", keep)
    history = tuple(
        {"epoch": float(epoch), "loss": 4.0 - epoch, "probe_accuracy": 0.1 * epoch}
        for epoch in range(3)
    )
    found = []
    for number in range(12):
        row = f"row {number} with a name that is rather long"
        found += outcomes(row, [50.0 + number, 52.0 + number], "one", paper=60.0, history=history)
        found += outcomes(row, [40.0], "two", history=history)
    draw_report(tmp_path, study(), found)
    bars, curves = drawn["bars.png"], drawn["curves.png"]
    names = [label.get_text() for label in bars.axes[0].get_yticklabels()]
    assert names == [f"row {number} with a name that is rather long" for number in range(12)]
    widths = sorted(patch.get_width() for patch in bars.axes[0].patches)
    np.testing.assert_allclose(widths, [40.0] * 12 + [51.0 + number for number in range(12)])
    assert bars.axes[0].get_xlim()[0] == 0.0
    labels = [text.get_text() for text in curves.legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == 24
    looks = {(line.get_color(), line.get_linestyle()) for line in curves.axes[-1].lines}
    assert len(looks) == 24, "two runs look the same"
    for figure in (bars, curves):
        for text in figure.legends[0].get_texts():
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
        plt.close(figure)
