"""The command that runs a study: what it runs, shares and goes on with. The quick tests let a
stand-in train and judge."""

import csv
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from byol_tf.study.__main__ import main
from byol_tf.study.progress import StudyProgress
from byol_tf.study.schema import packaged_studies
from tests.helpers.markdown import unpadded
from tests.helpers.waiting import HANG, wait_until

ROOT = Path(__file__).parents[3]
BASE = {
    "name": "tiny",
    "data": {"source": "digits"},
    "views": {"size": 32, "engine": "fused"},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 16, "output_size": 8},
    "predictor": {"hidden_size": 16},
    "tau": {"base": 0.9},
    "optimizer": {"base_learning_rate": 0.001, "reference_batch_size": None},
    "training": {"epochs": 3, "batch_size": 64},
    "devices": {"strategy": "cpu"},
    "probe": {"train_images": 100, "test_images": 100},
}
STUDY = {
    "title": "Three taus",
    "source": "no paper, table 0",
    "question": "Which tau?",
    "measures": {
        "linear": {"protocol": "linear", "options": ["--fast"]},
        "knn": {"protocol": "knn"},
    },
    "scales": {"small": {"config": "base.json", "budget": "Seconds.", "also": ["knn"]}},
    "cells": [
        {"row": "slow", "paper": 70.0, "set": {"tau.base": 0.99}},
        {"row": "quick", "paper": 60.0, "paper_says": "less"},
        {"row": "quick, named again", "set": {"tau.base": 0.9}},
    ],
}


@pytest.fixture
def study(tmp_path) -> Path:
    """The file of a tiny study, with its base beside it."""
    (tmp_path / "base.json").write_text(json.dumps(BASE))
    return written(tmp_path, STUDY)


def written(folder: Path, tree: dict) -> Path:
    file = folder / "taus.json"
    file.write_text(json.dumps(tree))
    return file


@pytest.fixture
def heard():
    """SIGINT is heard, even where the tests are a shell's job in the background, which ignores
    it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def calls(tmp_path, monkeypatch, request) -> Path:
    """Commands go to the stand-in; the file that it notes them in."""
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!/bin/sh\nexec {sys.executable} {ROOT / 'tests' / 'helpers' / 'study_stand_in.py'} "
        '"$@"\n'
    )
    stand_in.chmod(stand_in.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setattr("byol_tf.study.runner._POLL_SECONDS", 0.01)
    if not request.node.name.startswith("test_draws"):  # which takes seconds
        monkeypatch.setattr("byol_tf.study.report.draw_report", lambda *given: None)
    noted = tmp_path / "calls"
    monkeypatch.setenv("STAND_IN_CALLS", str(noted))
    return noted


def line(study: Path, *more: str) -> list[str]:
    return [str(study), "--root", str(study.parent / "studies"), *more]


def results(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


def figures(folder: Path) -> dict[tuple[str, str, str], str]:
    return {(row["row"], row["column"], row["seed"]): row["accuracy"] for row in results(folder)}


class TestOrderly:
    def test_leaves_results_table_and_figures(self, study, calls, capsys):
        assert main(line(study)) == 0
        out = study.parent / "studies" / "taus-small"
        assert figures(out) == {
            ("slow", "", "0"): "49.5000",
            ("slow", "knn", "0"): "59.5000",
            ("quick", "", "0"): "45.0000",
            ("quick", "knn", "0"): "55.0000",
            ("quick, named again", "", "0"): "45.0000",
            ("quick, named again", "knn", "0"): "55.0000",
        }
        row = results(out)[0]
        assert (row["command"], row["paper"], row["projection_std"], row["weights_digest"]) == (
            "linear --fast",
            "70.0",
            "0.99",
            "0.99",
        )
        table = unpadded((out / "table.md").read_text())
        assert (
            "| slow | 70.0 | 49.5 | 59.5 |" in table
            and "The paper's order holds in 1 of 1 pairs" in table
        )
        assert "| slow | 70.0 | 49.5 | 59.5 |" in unpadded(capsys.readouterr().out)

    def test_draws_figures(self, study, calls):
        main(line(study))
        out = study.parent / "studies" / "taus-small"
        for name in ("bars.png", "curves.png"):
            with Image.open(out / name) as image:
                assert image.width > 600 and len(image.convert("RGB").getcolors(1 << 24)) > 20

    def test_draws_the_curves_of_fine_tuning(self, study, calls, tmp_path, monkeypatch):
        drawn = {}
        monkeypatch.setattr(
            "byol_tf.runs.plots.save_figure",
            lambda figure, path: drawn.update({path.name: figure}),
        )
        measures = {"linear": {"protocol": "finetune"}, "knn": {"protocol": "knn"}}
        main(line(written(tmp_path, STUDY | {"measures": measures}), "--seeds", "2"))
        figure = drawn["tuning.png"]
        assert len(figure.axes) == 2
        labels = [text.get_text() for text in figure.legends[0].get_texts()]
        assert labels == ["slow", "quick", "quick, named again"]
        lines = figure.axes[0].lines  # of accuracy, two seeds each
        assert [list(line.get_ydata()) for line in lines] == [[50.0, 75.0, 87.5]] * 6

    def test_cells_with_equal_configs_share_a_run(self, study, calls):
        main(line(study))
        assert sorted(call.split()[:2] for call in calls.read_text().splitlines()) == sorted(
            [["train"], ["evaluate", "linear"], ["evaluate", "knn"]] * 2
        )

    def test_what_is_done_is_not_done_again(self, study, calls, capsys):
        main(line(study))
        before = calls.read_text()
        capsys.readouterr()
        assert main(line(study)) == 0
        assert calls.read_text() == before
        assert "6 of 6 figures are there" in capsys.readouterr().out

    def test_another_study_shares_the_runs(self, study, calls, tmp_path):
        main(line(study))
        before = calls.read_text().count("train")
        other = tmp_path / "other.json"
        other.write_text(json.dumps(STUDY | {"title": "Another"}))
        main(line(other))
        assert calls.read_text().count("train") == before

    def test_seeds_give_mean_and_spread(self, study, calls):
        assert main(line(study, "--seeds", "3")) == 0
        assert "| slow | 70.0 | 50.5 ± 1.0 | 60.5 ± 1.0 |" in unpadded(
            (study.parent / "studies" / "taus-small" / "table.md").read_text()
        )

    def test_only_and_set(self, study, calls):
        assert (
            main(
                line(
                    study, "--only", "slow", "--set", "seed=7", "--out", str(study.parent / "here")
                )
            )
            == 0
        )
        assert figures(study.parent / "here") == {
            ("slow", "", "7"): "56.5000",
            ("slow", "knn", "7"): "66.5000",
        }


class TestDisorderly:
    @pytest.mark.parametrize("jobs", ["1", "2"])
    def test_a_failure_is_reported_and_the_others_go_on(self, study, calls, tmp_path, capsys, jobs):
        cells = [{"row": "broken", "set": {"tau.base": 0.5}}, *STUDY["cells"]]
        assert main(line(written(tmp_path, STUDY | {"cells": cells}), "--jobs", jobs)) == 1
        out = study.parent / "studies" / "taus-small"
        table = unpadded((out / "table.md").read_text())
        assert "| broken | | failed | failed | |" in table
        assert re.search(
            r"\* failed: broken, seed 0: training ended with 1: loss is no number \(see .*\.log\)",
            table,
        )
        assert figures(out)["slow", "", "0"] == "49.5000" and figures(out)["broken", "", "0"] == ""
        assert "FAILED: broken, seed 0: training ended with 1" in capsys.readouterr().out
        assert calls.read_text().count("train") == 3, (
            "the run that failed isn't tried again for its second judgement"
        )

    def test_a_measure_compares_the_figure_that_it_names(self, study, calls):
        tree = json.loads(study.read_text())
        tree["measures"] = {
            name: {"protocol": "transfer", "figure": name} for name in ("mean_per_class", "top5")
        }
        tree["cells"][1]["measure"] = "top5"
        tree["scales"]["small"]["also"] = []
        study.write_text(json.dumps(tree))
        assert main(line(study)) == 1
        out = study.parent / "studies" / "taus-small"
        assert figures(out)["slow", "", "0"] == "24.7500"
        assert "expected a number top5; received None" in (out / "table.md").read_text()

    @pytest.mark.parametrize("content", ["{", '{"top1": null}', '{"top1": 0.5, "chance": "x"}'])
    def test_damaged_figure_fails_its_cell_only(self, study, calls, capsys, content):
        main(line(study, "--only", "slow"))
        (damaged, _) = sorted(
            (study.parent / "studies" / "runs").glob("tiny-*/evaluation/*/result.json")
        )
        damaged.write_text(content)
        assert main(line(study)) == 1
        out = study.parent / "studies" / "taus-small"
        assert (
            f"* failed: slow / knn, seed 0: {damaged}: expected what its command wrote; received"
            in (out / "table.md").read_text()
        )
        assert figures(out)["slow", "knn", "0"] == "" and figures(out)["slow", "", "0"] == "49.5000"
        assert figures(out)["quick", "knn", "0"] == "55.0000"
        shutil.rmtree(damaged.parent)
        assert main(line(study)) == 0
        assert figures(out)["slow", "knn", "0"] == "59.5000"

    @pytest.mark.parametrize(
        "content", ["{", '{"loss": "x"}', '{"pretrain_images": null}', '{"effective_rank": NaN}']
    )
    def test_damaged_result_is_named_and_fails_its_cells_only(self, study, calls, capsys, content):
        main(line(study, "--only", "slow"))
        (damaged,) = (study.parent / "studies" / "runs").glob("tiny-*/result.json")
        damaged.write_text(content)
        for path in damaged.parent.glob("evaluation/linear-*/result.json"):
            path.unlink()
        assert main(line(study)) == 1
        out = study.parent / "studies" / "taus-small"
        assert (
            f"FAILED: slow, seed 0: {damaged}: expected what its command wrote; received"
            in capsys.readouterr().out
        )
        assert figures(out)["slow", "", "0"] == "" and figures(out)["quick", "", "0"] == "45.0000"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_it_and_the_same_command_goes_on(
        self, study, calls, monkeypatch, capsys, heard, number
    ):
        monkeypatch.setenv("STAND_IN_SECONDS", "0.15")
        runs = study.parent / "studies" / "runs"

        def stop():
            wait_until(lambda: list(runs.glob("tiny-*/history.csv")))
            os.kill(os.getpid(), number)

        thread = threading.Thread(target=stop)
        thread.start()
        assert main(line(study)) == 128 + number
        thread.join(HANG)
        printed = capsys.readouterr().out
        assert f"stopped by {number.name}. To resume:\n  python -m byol_tf.study {study}" in printed
        out = study.parent / "studies" / "taus-small"
        assert "not yet" in (out / "table.md").read_text()
        monkeypatch.setenv("STAND_IN_SECONDS", "0")
        assert main(line(study)) == 0
        assert (
            figures(out)["slow", "", "0"] == "49.5000"
            and figures(out)["quick", "knn", "0"] == "55.0000"
        )
        assert signal.getsignal(number) not in (None, signal.SIG_IGN)

    def test_a_signal_stops_all_jobs(self, study, calls, monkeypatch, capsys):
        """Two runs are in progress at once, save, and are resumed."""
        monkeypatch.setenv("STAND_IN_SECONDS", "0.3")
        runs = study.parent / "studies" / "runs"

        def stop():
            wait_until(lambda: len(list(runs.glob("tiny-*/history.csv"))) == 2)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=stop)
        thread.start()
        assert main(line(study, "--jobs", "3")) == 128 + signal.SIGTERM
        thread.join(HANG)
        assert not list(runs.glob("tiny-*/result.json"))
        assert [text for text in capsys.readouterr().out.splitlines() if "left" in text] == [
            "[1/6] slow, seed 0; time left: known after the first",
            "[2/6] quick, seed 0; time left: known after the first",
        ]
        assert calls.read_text().split().count("train") == 2
        monkeypatch.setenv("STAND_IN_SECONDS", "0")
        assert main(line(study, "--jobs", "3")) == 0
        assert calls.read_text().split().count("train") == 4
        out = study.parent / "studies" / "taus-small"
        assert figures(out)["slow", "knn", "0"] == "59.5000"
        assert figures(out)["quick, named again", "", "0"] == "45.0000"

    def test_a_signal_between_two_commands_stops_it_too(self, study, calls, monkeypatch):
        from byol_tf.study import report as study_report

        original = study_report.write_report

        def report(*given):
            os.kill(os.getpid(), signal.SIGTERM)
            return original(*given)

        monkeypatch.setattr(study_report, "write_report", report)
        assert main(line(study)) == 128 + signal.SIGTERM
        assert calls.read_text().count("train") == 1

    def test_table_that_can_not_be_written_is_printed(self, study, calls, capsys):
        """Each cell is run all the same."""
        out = study.parent / "studies" / "taus-small"
        (out / "results.csv").mkdir(parents=True)
        assert main(line(study)) == 74
        printed = capsys.readouterr().out
        assert "can't be written" in printed
        assert "| slow | 70.0 | 49.5 | 59.5 |" in unpadded(printed)
        assert calls.read_text().count("train") == 2

    def test_cell_whose_files_can_not_be_written_fails_alone(self, study, calls, capsys):
        runs = study.parent / "studies" / "runs"
        main(line(study, "--only", "slow"))
        (log,) = runs.glob("*.log")
        shutil.rmtree(study.parent / "studies")
        log.mkdir(parents=True)
        assert main(line(study)) == 1
        assert f"FAILED: slow, seed 0: {log}: Is a directory" in capsys.readouterr().out
        assert figures(study.parent / "studies" / "taus-small")["quick", "", "0"] == "45.0000"

    def test_folder_is_tried_before_the_first_run(self, study, calls, capsys):
        assert main(line(study, "--out", str(study / "out"))) == 2
        assert capsys.readouterr().err == f"--out {study}/out: can't be written: Not a directory\n"
        assert not calls.exists()

    def test_a_study_runs_in_any_thread(self, study, calls):
        codes = []
        thread = threading.Thread(target=lambda: codes.append(main(line(study, "--only", "slow"))))
        thread.start()
        thread.join(HANG)
        assert codes == [0]

    def test_hang_ups_are_ignored_where_they_were(self, study, calls):
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGHUP)).start()
            assert main(line(study)) == 0
        finally:
            signal.signal(signal.SIGHUP, before)

    def test_a_wrong_study_runs_nothing(self, study, calls, tmp_path, capsys):
        cells = [{"row": "slow", "set": {"tau.base": 2}}, {"row": "quick"}]
        assert main(line(written(tmp_path, STUDY | {"cells": cells}))) == 2
        assert 'taus.json, row "slow": --set tau.base=2: ' in capsys.readouterr().err
        assert not calls.exists() and not (tmp_path / "studies").exists()


class TestListing:
    def test_without_a_study_the_packaged_ones_are_named(self, capsys):
        assert main([]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == packaged_studies()
        assert "simsiam-a             SimSiam, A: stop-gradient" in lines

    def test_a_study_is_listed_with_what_is_done(self, study, calls, capsys):
        main(line(study, "--only", "slow"))
        capsys.readouterr()
        assert main(line(study, "--list")) == 0
        listed = capsys.readouterr().out.splitlines()
        assert listed[:2] == ["Three taus", "Which tau?"]
        assert [text.split()[0] for text in listed[3:]] == ["done", "done", "-", "-", "-", "-"]
        assert "tau.base=0.99" in listed[3]


class TestProgress:
    def test_the_time_left_tells_runs_from_judgements(self, capsys):
        progress = StudyProgress("Taus", 8, Counter([True, False] * 3))
        for trains, seconds in ((True, 600.0), (False, 20.0)):
            progress.begin("a figure", trains)
            progress.end("a figure", seconds)
        progress.begin("the next", True)
        assert capsys.readouterr().out.splitlines() == [
            "Taus",
            "2 of 8 figures are there",
            "[3/8] a figure; time left: known after the first",
            # as long as no judgement is known, all are taken for as slow
            "[4/8] a figure; about 50 min left",
            "[5/8] the next; about 21 min left",
        ]

    def test_what_is_done_of_a_run_counts(self, capsys):
        progress = StudyProgress("Taus", 2, Counter([True] * 2))
        progress.begin("one", True)
        progress.end("one", 100.0)
        progress.begin("two", True)
        progress.update("two", "training", 0.5)
        assert progress._time_left() == "about 1 min left"
        progress.update("two", "linear", None)
        assert progress._time_left() == "about 20 s left"

    def test_cells_side_by_side_share_the_time_left(self):
        progress = StudyProgress("Taus", 4, Counter([True] * 4), jobs=2)
        for name in ("one", "two"):
            progress.begin(name, True)
        progress.end("one", 100.0)
        progress.begin("three", True)
        progress.update("two", "training", 0.5)
        assert progress._time_left() == "about 2 min left"  # (0.6 + 1 + 1) * 100 s / 2

    def test_a_failure_tells_nothing_of_the_others(self, capsys):
        progress = StudyProgress("Taus", 2, Counter([True] * 2))
        progress.begin("one", True)
        progress.end("one", None)
        progress.begin("two", True)
        assert (
            capsys.readouterr().out.splitlines()[-1]
            == "[2/2] two; time left: known after the first"
        )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    """The figures of the tiny study, run by the real command."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "base.json").write_text(json.dumps(BASE))
    process = start(written(folder, STUDY))
    assert process.wait(HANG) == 0
    return measured(folder)


def measured(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    rows = results(folder / "studies" / "taus-small")
    return {(row["row"], row["column"]): (row["accuracy"], row["weights_digest"]) for row in rows}


def start(study: Path, *more: str) -> subprocess.Popen:
    """The real command; what it prints goes to the file `log` beside the study."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "byol_tf.study", *line(study, *more)]
    with (study.parent / "log").open("ab") as log:
        return subprocess.Popen(words, cwd=study.parent, env=environment, stdout=log, stderr=log)


@pytest.mark.long
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_stopped_and_restarted_study_has_the_same_figures(study, undisturbed, jobs):
    """The real command, stopped by SIGTERM while its first run trains."""
    runs = study.parent / "studies" / "runs"
    process = start(study, "--jobs", jobs)

    def has_trained() -> bool:
        assert process.poll() is None, (study.parent / "log").read_text()
        return bool(list(runs.glob("tiny-*/history.csv")))

    wait_until(has_trained, pause=0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(HANG) == 128 + signal.SIGTERM
    assert not list(runs.glob("tiny-*/result.json")), "stopped too late to show anything"
    assert start(study, "--jobs", jobs).wait(HANG) == 0, (study.parent / "log").read_text()
    assert measured(study.parent) == undisturbed
    assert (
        undisturbed["quick", ""] == undisturbed["quick, named again", ""] != undisturbed["slow", ""]
    )
    assert len(list(runs.glob("tiny-*/result.json"))) == 2
    assert len(list(runs.glob("tiny-*/evaluation/*/result.json"))) == 4


@pytest.mark.long
def test_killed_study_leaves_no_training_behind(study):
    """The run in progress saves and ends, and the study started again resumes it."""
    runs = study.parent / "studies" / "runs"
    process = start(study)
    wait_until(lambda: list(runs.glob("tiny-*/checkpoints/epoch-*")), pause=0.1)
    (folder,) = {path.parents[1] for path in runs.glob("tiny-*/checkpoints/epoch-*")}
    process.kill()
    process.wait()

    def has_ended() -> bool:
        return (folder / "result.json").exists() or not (folder / ".lock").read_bytes()

    wait_until(has_ended, pause=0.1)
    (log,) = runs.glob("*.log")
    assert (folder / "result.json").exists() or "stopped by SIGTERM" in log.read_text()
    assert start(study).wait(HANG) == 0, (study.parent / "log").read_text()
