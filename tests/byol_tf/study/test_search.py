"""Searches over a study's settings, with a stand-in that trains: trials, pruning, resuming."""

import csv
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from byol_tf.study.__main__ import main
from byol_tf.study.search import SearchRunner
from pipelines.extras import install_line
from tests.byol_tf.study.test_command import BASE, ROOT, STUDY, calls, line, written
from tests.helpers.markdown import unpadded
from tests.helpers.waiting import HANG, wait_until

__all__ = ["calls"]  # a fixture
SPACE = {
    "tau.base": [0.9, 0.8, 0.99, 0.7],
    "optimizer.base_learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "projector.hidden_size": {"low": 16, "high": 64},
}
PYTHON = sys.executable  # the fixture `calls` replaces it
COMMAND = """
import sys
sys.executable = sys.argv[1]
from byol_tf.study import runner, search_figure
runner._POLL_SECONDS = 0.01
search_figure.parallel_figure = lambda *given: None
from byol_tf.study.__main__ import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture
def study(tmp_path, monkeypatch, request) -> Path:
    if not request.node.name.startswith("test_draws"):  # which takes a second
        monkeypatch.setattr("byol_tf.study.search_figure.parallel_figure", lambda *given: None)
    return with_search(tmp_path, {"space": SPACE})


def with_search(folder: Path, search: dict) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "base.json").write_text(json.dumps(BASE))
    return written(folder, STUDY | {"search": search})


def out(study: Path) -> Path:
    return study.parent / "studies" / "taus-small-search"


def trials(study: Path) -> list[dict[str, str]]:
    with (out(study) / "table.csv").open() as file:
        return list(csv.DictReader(file))


def searched(study: Path, count: int = 5, *more: str) -> int:
    return main(line(study, "--search", str(count), *more))


def test_trials_are_ranked_by_held_out_accuracy(study, calls, capsys):
    assert searched(study) == 0
    assert {call.split()[0] for call in calls.read_text().splitlines()} == {"train"}
    table = trials(study)
    assert sorted(int(row["trial"]) for row in table) == list(range(5))
    complete = [row for row in table if row["state"] == "complete"]
    assert [row["value"] for row in complete] == sorted(
        (f"{float(row['tau.base']) / 2:g}" for row in complete), reverse=True
    )
    for row in table:
        config = json.loads(
            (study.parent / "studies/runs" / row["run"] / "config.json").read_text()
        )
        assert config["probe"]["split"] == "held_out"
        assert (
            json.loads(row["optimizer.base_learning_rate"])
            == (config["optimizer"]["base_learning_rate"])
        )
        assert 16 <= config["projector"]["hidden_size"] <= 64
    best = json.loads((out(study) / "best.json").read_text())
    assert (best["probe"]["split"], best["tau"]["base"]) == ("test", float(table[0]["tau.base"]))
    printed = unpadded(capsys.readouterr().out)
    assert f"| {table[0]['trial']} | {table[0]['tau.base']} |" in printed
    assert r"\toprule" in (out(study) / "table.tex").read_text()
    calls.unlink()
    assert searched(study) == 0  # nothing is left to do
    assert not calls.exists()
    assert searched(study, 7) == 0
    assert trials(study)[0]["value"] >= table[0]["value"]
    assert len(trials(study)) == 7


def test_trials_below_the_best_third_end_early(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("STAND_IN_SECONDS", "0.05")
    monkeypatch.setattr("byol_tf.study.search_figure.parallel_figure", lambda *given: None)
    states = {}
    for pruner in ("successive_halving", "none"):
        search = {"space": {"tau.base": [0.7, 0.8, 0.9]}, "pruner": pruner, "sampler": "random"}
        study = with_search(tmp_path / pruner, search)
        assert searched(study, 6) == 0
        states[pruner] = {(row["tau.base"], row["state"], row["epochs"]) for row in trials(study)}
    best = max(tau for tau, *_ in states["none"])
    assert states["none"] == {(tau, "complete", "3") for tau, *_ in states["none"]}
    assert len(states["none"]) > 1
    pruned = {row for row in states["successive_halving"] if row[1] == "pruned"}
    assert pruned and all(tau < best and epochs == "1" for tau, _, epochs in pruned)
    assert (best, "complete", "3") in states["successive_halving"]


def test_killed_search_resumes_its_trial_and_samples_the_same(study, calls, tmp_path, monkeypatch):
    whole = with_search(tmp_path / "whole", {"space": SPACE})
    assert searched(whole) == 0
    monkeypatch.setenv("STAND_IN_SECONDS", "0.2")
    words = [sys.executable, *line(study, "--search", "5")]  # the stand-in
    process = subprocess.Popen([PYTHON, "-c", COMMAND, *words], cwd=ROOT)
    runs = study.parent / "studies" / "runs"
    wait_until(lambda: len(list(runs.glob("*/history.csv"))) > 1)
    process.send_signal(signal.SIGKILL)
    process.wait(HANG)
    journal = out(study) / "trials.journal"
    with journal.open("a") as file:
        file.write('{"op_code":6,"half of a li')
    lock = journal.with_name("trials.journal.lock")
    if not lock.is_symlink():  # it may have been killed with the lock
        lock.symlink_to("trials.journal")
    assert searched(study) == 0
    assert trials(study) == trials(whole)


def test_time_limit_stops_a_trial_which_the_next_call_resumes(study, calls, monkeypatch, capsys):
    runs = study.parent / "studies" / "runs"
    with monkeypatch.context() as patch:  # the time is over after the first epoch
        patch.setenv("STAND_IN_SECONDS", "0.5")
        after_an_epoch = property(lambda search: any(runs.glob("*/history.csv")))
        patch.setattr("byol_tf.study.search.SearchRunner.out_of_time", after_an_epoch)
        assert searched(study, 1, "--minutes", "60") == 0
    assert trials(study)[0]["state"] == "running"
    assert "the time is over; the same command resumes the search" in capsys.readouterr().out
    assert searched(study, 1, "--minutes", "60") == 0
    assert [(row["trial"], row["state"]) for row in trials(study)] == [("0", "complete")]
    assert calls.read_text().splitlines() == ["train", "train"]


def test_failed_trials_are_reported_and_end_the_search(tmp_path, study, calls, capsys):
    study = with_search(tmp_path, {"space": {"tau.base": [0.5]}})
    assert searched(study, 9) == 1
    assert [row["state"] for row in trials(study)] == ["failed"] * 3
    assert "* failed: trial 0: training ended with 1: loss is no number" in capsys.readouterr().out


def test_draws_parallel_coordinates(study, calls):
    assert searched(study) == 0
    with Image.open(out(study) / "parallel.png") as image:
        assert image.width > 600 and len(image.convert("RGB").getcolors(1 << 24)) > 20


@pytest.mark.parametrize(
    ("search", "more", "text"),
    [
        (None, [], "taus.json: search: missing; expected what --search varies"),
        (
            {"space": {"tau.bass": [0.9], "tau.base": [0.9, 2]}},
            [],
            'taus.json, search.space: --set tau.bass=0.9: unknown key; did you mean "base"',
        ),
        (
            {"space": {"tau.base": {"low": 0.9, "high": 0.9}}},
            [],
            "search.space.tau.base: expected low below high; received 0.9 and 0.9",
        ),
        (
            {"space": {"optimizer.weight_decay": {"low": 0, "high": 0.1, "log": True}}},
            [],
            "search.space.optimizer.weight_decay: expected low below high and above 0; received 0",
        ),
        ({"space": SPACE}, ["--only", "slow"], "--search: takes neither --seeds nor --only nor"),
        (
            {"space": SPACE},
            ["--jobs", "2"],
            "--search: takes neither --seeds nor --only nor --jobs",
        ),
        ({"space": SPACE}, ["--minutes", "0"], "--minutes: expected a number above 0; received"),
    ],
)
def test_mistakes_are_reported_before_anything_is_run(search, more, text, tmp_path, calls, capsys):
    study = with_search(tmp_path, search)
    try:
        code = searched(study, 2, *more)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert text in capsys.readouterr().err
    assert not calls.exists() and not (tmp_path / "studies").exists()


def test_search_of_another_config_is_not_resumed(study, calls, capsys):
    assert searched(study, 1) == 0
    assert searched(study, 2, "--set", "seed=3") == 2
    assert "seed: 0 there, 3 now" in capsys.readouterr().err
    assert searched(study, 2, "--set", "monitor.metric=knn_accuracy") == 2
    assert "another section search of the study, monitor or run.export" in capsys.readouterr().err
    with_search(study.parent, {"space": {"tau.base": [0.9]}})
    assert searched(study, 2) == 2
    assert "was started with another section search of the study" in capsys.readouterr().err


def test_search_that_was_taken_over_writes_nothing_more(study, calls, monkeypatch, capsys):
    """As after a suspended process wakes up, on a disk without locks."""
    real = SearchRunner.run_trial

    def suspended(self, progress):
        state = real(self, progress)
        (out(study) / ".lock").write_text('{"pid": 7, "host": "another"}')
        return state

    monkeypatch.setattr(SearchRunner, "run_trial", suspended)
    assert searched(study, 1) == 2
    error = capsys.readouterr().err
    assert "expected to have this search alone" in error and "process 7 on another" in error
    assert not (out(study) / "table.md").exists()


def test_table_of_a_search_is_printed_where_it_can_not_be_saved(study, calls, monkeypatch, capsys):
    def full(*given):
        raise OSError(
            errno.ENOSPC, "No space left on device"
        )  # as a write raises it, without a file

    monkeypatch.setattr("byol_tf.study.search_report.write_atomically", full)
    assert searched(study, 10**8) == 74
    received = capsys.readouterr()
    assert "| 0     |" in received.out and "Value: " in received.out
    assert received.err == (
        "stopped: No space left on device. The same command resumes the search\n"
    )


def test_linked_journal_is_neither_read_nor_cut(study, calls, tmp_path, capsys):
    (tmp_path / "mine").write_text("a line\nhalf a line")
    out(study).mkdir(parents=True)
    (out(study) / "trials.journal").symlink_to(tmp_path / "mine")
    assert searched(study) == 2
    assert "trials.journal: it is a link" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "a line\nhalf a line"


def test_search_without_optuna_names_the_extra(study, calls, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert searched(study, 1) == 2
    assert f"--search: needs Optuna, {install_line('search')}" in capsys.readouterr().err
