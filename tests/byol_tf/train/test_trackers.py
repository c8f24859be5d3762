"""Trackers get each row of a run, settings included, and a resumed run continues there."""

import csv
import json
import os
import sqlite3
import subprocess
import sys

import pytest

from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.runs.folder import RunFolder
from byol_tf.train import trackers
from tests.docs.pages import ROOT
from tests.helpers.small_run import CONFIG
from tests.helpers.waiting import HANG

NAMES = ("wandb", "mlflow", "trackio")


def config(*names):
    return load_config("demo", [f"run.trackers={json.dumps(names)}"])


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"run\.trackers: mlflow isn't installed: pip install"):
        trackers.check_trackers(config("mlflow"))


def test_a_tracker_that_fails_ends_nothing_and_is_reported_once(tmp_path, monkeypatch, caplog):
    rows, ends = [], []

    def fails(values, epoch):
        raise ConnectionError("no answer")

    monkeypatch.setitem(trackers._OPEN, "wandb", lambda *_: ("1", fails, ends.append))
    monkeypatch.setitem(
        trackers._OPEN,
        "mlflow",
        lambda *_: ("2", lambda values, epoch: rows.append(values), ends.append),
    )
    with trackers.open_trackers(config("wandb", "mlflow"), RunFolder(tmp_path)) as log:
        log({"training/loss": 1.0}, 1)
        log({"training/loss": 0.5}, 2)
    assert rows == [{"training/loss": 1.0}, {"training/loss": 0.5}] and ends == [True, True]
    assert [record.getMessage() for record in caplog.records] == [
        "wandb: not logged: no answer. The run continues without it"
    ]
    assert json.loads((tmp_path / "trackers.json").read_text()) == {"wandb": "1", "mlflow": "2"}


def test_one_that_cannot_start_ends_the_run_before_its_first_step(tmp_path, monkeypatch):
    def refuses(*_):
        raise RuntimeError("not logged in")

    monkeypatch.setitem(trackers._OPEN, "wandb", refuses)
    with pytest.raises(ConfigError, match="wandb can't be started: not logged in"):
        trackers.open_trackers(config("wandb"), RunFolder(tmp_path)).__enter__()


@pytest.mark.parametrize("content", ["", "[1]", '{"wandb": 1}'])
def test_damaged_identities_are_named(tmp_path, monkeypatch, content):
    monkeypatch.setitem(trackers._OPEN, "wandb", lambda *_: pytest.fail("opened"))
    (tmp_path / "trackers.json").write_text(content)
    with pytest.raises(RunFolderError, match=r"trackers\.json: expected .*Without that file"):
        trackers.open_trackers(config("wandb"), RunFolder(tmp_path)).__enter__()


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_the_rows_of_a_run_and_of_its_continuation(name, tmp_path):
    pytest.importorskip(name, reason=f"{name} isn't installed (extra {name})")
    constant = {
        "optimizer": CONFIG["optimizer"] | {"schedule": "constant"},
        "tau": {"schedule": "constant", "base": 0.99},
        "data": {"source": "textures", "pretrain_images": 128},
        "probe": {"supervised": False, "train_images": 40, "test_images": 40},
        "run": {"trackers": [name], "report": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | constant))
    line = [sys.executable, "-m", "byol_tf.train", "--config", "config.json", "--run-dir", "run"]
    environment = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    environment |= {"TRACKIO_DIR": str(tmp_path / "trackio"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    for epochs in (1, 2):
        subprocess.run(
            [*line, "--set", f"training.epochs={epochs}"],
            cwd=tmp_path,
            env=os.environ | environment | {"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=HANG,
        )
    with (tmp_path / "run" / "history.csv").open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert len(losses) == 2
    identity = json.loads((tmp_path / "run" / "trackers.json").read_text())[name]
    if name == "mlflow":
        import mlflow

        client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"])
        kept = client.get_metric_history(identity, "training/loss")
        assert [(metric.step, metric.value) for metric in kept] == list(enumerate(losses, 1))
        assert client.get_run(identity).data.params["optimizer.name"] == '"adam"'
    elif name == "wandb":
        folders = list((tmp_path / "wandb").glob("offline-run-*"))
        assert len(folders) == 2 and all(identity in folder.name for folder in folders)
    else:
        (database,) = (tmp_path / "trackio").rglob("*.db")
        with sqlite3.connect(database) as connection:
            kept = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
        found = {step: json.loads(metrics).get("training/loss") for step, metrics in kept}
        assert [found[1], found[2]] == losses
