"""The main command, as a user runs it: real processes, real images, a real run folder."""

import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from byol_tf.runs.checkpoints import list_checkpoints, position_of

ROOT = Path(__file__).parents[3]
SMALL = {
    "name": "small",
    "data": {"source": "digits"},
    "views": {"size": 32, "first": {"crop_area": [0.4, 1.0]}, "second": {"crop_area": [0.4, 1.0]}},
    "encoder": {"name": "convnet", "width": 0.25},
    "projector": {"hidden_size": 64, "output_size": 32},
    "predictor": {"hidden_size": 64},
    "tau": {"base": 0.99},
    "optimizer": {"base_learning_rate": 0.002, "reference_batch_size": None},
    "training": {"epochs": 3, "batch_size": 64, "deterministic": True},
    "devices": {"strategy": "cpu"},
    "probe": {"train_images": 50, "test_images": 100},
}

FIGURES = tuple(
    f"figures/{name}.png"
    for name in ("views", "curves", "collapse", "neighbours", "map", "confusion")
)


def command(folder: Path, *arguments: str) -> list[str]:
    """The line that trains SMALL in a folder."""
    config = folder / "small.json"
    config.write_text(json.dumps(SMALL))
    return [
        sys.executable,
        "-m",
        "byol_tf.train",
        "--config",
        str(config),
        "--set",
        f"run.root={folder / 'runs'}",
        *arguments,
    ]


def run(*line: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a command line to its end, with what it printed."""
    return subprocess.run(
        line, capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )


def offline(tries: Path) -> dict[str, str]:
    """The environment of a process that may ask nothing of the network; what it asks all the same
    is listed in the file `tries`."""
    found = os.pathsep.join(
        filter(None, [str(ROOT / "tests" / "helpers" / "offline"), os.environ.get("PYTHONPATH")])
    )
    return {"PYTHONPATH": found, "BYOL_TF_TEST_TRIES": str(tries)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess, dict]:
    """(folder, process, result) of one undisturbed run, without network."""
    folder = tmp_path_factory.mktemp("train")
    done = run(*command(folder, "--set", "probe.supervised=true"), **offline(folder / "tries.txt"))
    assert done.returncode == 0, done.stderr
    return folder, done, json.loads(done.stdout.splitlines()[-1])


def test_a_run_asks_nothing_of_the_network(finished):
    assert not (finished[0] / "tries.txt").exists(), (finished[0] / "tries.txt").read_text()


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.socket().connect(('0.0.0.0', 9))",
        "import urllib.request; urllib.request.urlopen('http://host.invalid/')",
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('0.0.0.0', "
        "9))",
        "import subprocess, sys; subprocess.check_call([sys.executable, '-c', 'import socket; "
        'socket.gethostbyname("host.invalid")\'])',
    ],
)
def test_a_run_that_asked_would_be_found_out(tmp_path, attempt):
    """The control: refused, and listed though the error is caught. This machine may be asked."""
    caught = f"try:\n    {attempt}\nexcept Exception: pass\nelse: raise SystemExit(3)\n"
    here = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(('localhost', s.getsockname()[1]))"
    )
    done = run(sys.executable, "-c", caught + here, **offline(tmp_path / "tries.txt"))
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "tries.txt").read_text().splitlines()) == 1


def test_last_line_is_the_result(finished):
    _, _, result = finished
    expected = {
        "run_dir",
        "export_dir",
        "epochs",
        "steps",
        "seconds",
        "images_per_second",
        "loss",
        "probe_accuracy",
    }
    assert expected | {"untrained_probe_accuracy", "projection_std", "weights_digest"} <= set(
        result
    )
    assert json.loads((Path(result["run_dir"]) / "result.json").read_text()) == result
    assert (result["epochs"], result["steps"]) == (3, 3 * (1437 // 64))
    assert 0.0 <= result["untrained_probe_accuracy"] <= 1.0
    assert 0.0 < result["loss"] < 4.0


def test_the_same_network_from_scratch_stands_beside_it(finished):
    _, done, result = finished
    assert result["system"] == "BYOL"
    assert 0.2 < result["supervised_accuracy"] <= 1.0  # chance is a tenth
    assert f"supervised on the same labels {result['supervised_accuracy']:>20.1%}" in done.stdout
    assert "retracing" not in done.stderr


def test_run_folder_is_complete(finished):
    _, _, result = finished
    run_dir = Path(result["run_dir"])
    for name in (
        "config.json",
        "environment.json",
        "history.csv",
        "result.json",
        "report.html",
        *FIGURES,
    ):
        assert (run_dir / name).stat().st_size > 100, name
    assert list((run_dir / "logs").glob("events.out.tfevents.*"))
    assert [path.name for path in sorted((run_dir / "checkpoints").iterdir())] == [
        "epoch-0001",
        "epoch-0002",
        "epoch-0003",
    ]
    with (run_dir / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert float(rows[3]["probe_accuracy"]) == result["probe_accuracy"]
    assert float(rows[1]["tau"]) < float(rows[2]["tau"]) < float(rows[3]["tau"])


def test_the_plan_said_what_the_run_took(finished):
    _, done, result = finished
    said = float(re.search(r"disk .*checkpoints of ([\d.]+) MB", done.stdout)[1])
    sizes = [
        sum(file.stat().st_size for file in path.iterdir())
        for path in (Path(result["run_dir"]) / "checkpoints").iterdir()
    ]
    assert all(0.95 * said - 0.05 < size / 1e6 < 1.3 * said + 0.1 for size in sizes), (said, sizes)
    assert re.search(r"recipe +the defaults but for ", done.stdout)


def test_tensorboard_holds_the_curves(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, _, result = finished
    events = EventAccumulator(str(Path(result["run_dir"]) / "logs")).Reload()
    expected = {
        "training/loss",
        "training/tau",
        "training/learning_rate",
        "accuracy/linear",
        "accuracy/knn",
        "collapse/projection_std",
    }
    assert expected | {
        "accuracy/supervised",
        "views",
        "config",
        "figures/neighbours",
        "figures/map",
    } <= set(events.Tags()["tensors"])


def test_tensorboard_holds_the_hyperparameters_and_the_projector(finished):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2
    from tensorboard.plugins.projector.projector_plugin import _read_tensor_tsv_file as read_tensor

    run_dir = Path(finished[2]["run_dir"])
    events = EventAccumulator(str(run_dir / "logs")).Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    session = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert session.group_name == run_dir.name
    assert session.hparams["tau.base"].number_value == 0.99
    assert session.hparams["training.deterministic"].bool_value is True
    assert session.hparams["views.first.crop_area"].string_value == "[0.4, 1.0]"
    assert "representations.tsv" in (run_dir / "logs" / "projector_config.pbtxt").read_text()
    assert read_tensor(str(run_dir / "logs" / "representations.tsv")).shape == (100, 32)
    assert len((run_dir / "logs" / "classes.tsv").read_text().splitlines()) == 100


def test_the_report_shows_what_the_run_was(finished):
    """Its untrained network is the one that the run began with, and its probe the one that was
    measured."""
    from byol_tf.config.loading import load_config
    from byol_tf.evaluate.features import embed
    from byol_tf.evaluate.knn import knn_accuracy
    from byol_tf.report.representations import analyze_representations, start_model
    from byol_tf.runs.data import probe_images, source_options
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.folder import RunFolder
    from pipelines.sources import open_source

    _, done, result = finished
    folder = RunFolder(result["run_dir"])
    config = load_config(folder.config)
    source = open_source(**source_options(config))
    start, (train, test) = start_model(config), probe_images(config, source)
    before = knn_accuracy(
        embed(start, train), train.labels, embed(start, test), test.labels, config.probe.neighbours
    )
    assert before == result["untrained_knn_accuracy"]
    seen = analyze_representations(config, load_run_encoder(config, folder), source)
    assert np.mean(seen.predicted == seen.actual) == pytest.approx(
        result["probe_accuracy"], abs=0.011
    )  # one image
    shares = seen.spectra["trained"][seen.spectra["trained"] > 0]
    assert np.exp(-(shares * np.log(shares)).sum()) == pytest.approx(
        result["effective_rank"], rel=1e-3
    )
    page = folder.report.read_text(encoding="utf-8")
    assert (
        f"{result['probe_accuracy']:.1%}" in page and f"{result['supervised_accuracy']:.1%}" in page
    )
    assert f"look:  {folder.report}" in done.stdout


def test_the_same_command_again_trains_nothing(finished, capsys):
    folder, _, result = finished
    code, printed, _ = in_process(capsys, command(folder, "--set", "probe.supervised=true"))
    assert code == 0
    assert "this run is finished" in printed
    assert "Epoch" not in printed
    assert json.loads(printed.splitlines()[-1]) == result


def but_for_speed(history: Path) -> list[dict[str, str]]:
    """The rows as they were written, without the column that no two runs share."""
    with history.open() as file:
        return [
            {name: value for name, value in row.items() if name != "images_per_second"}
            for row in csv.DictReader(file)
        ]


def broken_off(
    line: list[str], folder: Path, epoch: int, step: int, number: int
) -> tuple[int, str]:
    """(exit code, what it printed) of a command that gets a signal when there is a checkpoint at a
    step of an epoch, or later in it."""
    at_once = os.environ | {
        "PYTHONUNBUFFERED": "1"
    }  # or a killed process takes with it what it said
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=at_once
    )
    deadline = time.time() + 200
    while not any(
        position_of(path) >= (epoch, step)
        for runs in folder.glob("runs/*")
        for path in list_checkpoints(runs / "checkpoints")
    ):
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=100)
    return process.returncode, printed


# with fused views, a step is a second's: tests/reliability/test_every_step.py has those
@pytest.mark.long
def test_a_run_that_is_stopped_and_killed_within_epochs_ends_on_the_same_weights(
    finished, tmp_path
):
    """One seed gives one loss curve and the same bits, also to a run that was interrupted: order
    and draws are functions of the step."""
    often = command(tmp_path, "--set", "run.checkpoint_every_steps=1")
    code, printed = broken_off(often, tmp_path, 0, random.randint(1, 15), signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert (
        where := re.search(
            r"stopped by SIGTERM after epoch 0 of 3, step (\d+) of 22 in the next; saved", printed
        )
    )
    going_on = [sys.executable, *shlex.split(printed.splitlines()[-1])[1:]]
    code, printed = broken_off(going_on, tmp_path, 1, random.randint(1, 15), signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert f"going on after epoch 0 of 3, step {where[1]} of 22 in the next" in printed
    resumed = run(*often)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"going on after epoch 1 of 3, step \d+ of 22 in the next", resumed.stdout)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["weights_digest"] == finished[2]["weights_digest"]
    assert result["steps"] == finished[2]["steps"]
    curves = [but_for_speed(Path(run["run_dir"]) / "history.csv") for run in (result, finished[2])]
    assert curves[0] == curves[1]


def in_process(capsys, line: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command line without the seconds that a new process
    takes."""
    from byol_tf.train.__main__ import main

    code = main(line[3:])
    return code, *capsys.readouterr()


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    code, printed, _ = in_process(
        capsys, command(tmp_path, "--dry-run", "--set", "optimizer.reference_batch_size=128")
    )
    assert code == 0
    assert "1,437 to learn from" in printed
    assert "3 epochs of 22 steps of 64 images: 66 steps" in printed
    assert "learning rate 0.001, cosine" in printed  # 0.002 x 64 / 128
    assert "0.99 to 1, cosine" in printed
    assert re.search(
        r"time +about [\d.,]+ \w+ of steps to go \([\d.,]+ to [\d.,]+, by [23] timings\), at ",
        printed,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["small.json"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["training.batch_size=5000"],
            "training.batch_size: expected at most the number of pre-training images, 1437; "
            "received 5000",
        ),
        (["data.source=folder", "data.root=nowhere"], "nowhere"),
        (
            ["devices.strategy=gpu", "training.deterministic=false"],
            'devices.strategy: "gpu" needs a GPU and TensorFlow sees none',
        ),
    ],
)
def test_what_cannot_work_is_said_before_a_folder_is_made(
    tmp_path, capsys, monkeypatch, overrides, message
):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    code, _, errors = in_process(
        capsys, command(tmp_path, *(part for override in overrides for part in ("--set", override)))
    )
    assert code == 2
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["small.json"]


def test_a_folder_of_another_config_is_refused(finished, capsys):
    folder, _, result = finished
    code, _, errors = in_process(
        capsys, command(folder, "--run-dir", result["run_dir"], "--set", "training.epochs=9")
    )
    assert code == 2
    assert "training.epochs: 3 there, 9 now" in errors
