"""The training command as a user runs it: real processes, images and run folder."""

import csv
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.runs.accuracy import Accuracy
from byol_tf.runs.checkpoints import list_checkpoints, position_of
from tests.helpers.handlers import reset_handlers
from tests.helpers.waiting import HANG, wait_until

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
    """Returns the command line that trains SMALL in a folder."""
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
    """Runs a command line to its end."""
    return subprocess.run(
        line,
        capture_output=True,
        text=True,
        timeout=HANG,
        env=os.environ | environment,
        check=False,
    )


def offline(attempts: Path) -> dict[str, str]:
    """Returns the environment of a process that has no network; `attempts` lists what it tried."""
    path = os.pathsep.join(
        filter(None, [str(ROOT / "tests" / "helpers" / "offline"), os.environ.get("PYTHONPATH")])
    )
    return {"PYTHONPATH": path, "BYOL_TF_TEST_TRIES": str(attempts)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess, dict]:
    """(folder, process, result) of one uninterrupted run, without network."""
    folder = tmp_path_factory.mktemp("train")
    done = run(*command(folder), **offline(folder / "tries.txt"))
    assert done.returncode == 0, done.stderr
    return folder, done, json.loads(done.stdout.splitlines()[-1])


def test_run_uses_no_network(finished):
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
def test_network_use_would_be_detected(tmp_path, attempt):
    """The control: refused, and listed though the error is caught. Loopback is allowed."""
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


@pytest.mark.long
def test_supervised_baseline_is_reported(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    overrides = ["probe.supervised=true", "training.epochs=1"]
    done = run(*command(tmp_path, *(part for each in overrides for part in ("--set", each))))
    result = json.loads(done.stdout.splitlines()[-1])
    run_dir = Path(result["run_dir"])
    assert result["system"] == "BYOL"
    assert 0.2 < result["supervised_accuracy"] <= 1.0  # chance is a tenth
    (line,) = re.findall(r"supervised on the same labels +(.*)", done.stdout)
    accuracy = Accuracy(result["supervised_accuracy"], result["test_images"])
    assert line == str(accuracy)
    assert result["intervals"]["supervised_accuracy"] == list(accuracy.interval)
    assert result["chance"] == pytest.approx(0.1, abs=0.02)
    assert f": linear probe {result['probe_accuracy']:.1%}, untrained " in result["verdict"][0]
    assert "retracing" not in done.stderr
    assert f"{result['supervised_accuracy']:.1%}" in (run_dir / "report.html").read_text()
    events = EventAccumulator(str(run_dir / "logs")).Reload()
    assert "accuracy/supervised" in events.Tags()["tensors"]


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


def test_plan_matches_the_size_of_checkpoints(finished):
    _, done, result = finished
    planned = float(re.search(r"disk .*checkpoints of ([\d.]+) MB", done.stdout)[1])
    sizes = [
        sum(file.stat().st_size for file in path.iterdir())
        for path in (Path(result["run_dir"]) / "checkpoints").iterdir()
    ]
    assert all(0.95 * planned - 0.05 < size / 1e6 < 1.3 * planned + 0.1 for size in sizes), (
        planned,
        sizes,
    )
    assert re.search(r"recipe +the defaults with ", done.stdout)


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
        "views",
        "config",
        "figures/neighbours",
        "figures/map",
    } <= set(events.Tags()["tensors"])


def test_tensorboard_holds_the_hyperparameters_and_the_projector(finished):
    from google.protobuf import text_format
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins import projector
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
    text = (run_dir / "logs" / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, projector.ProjectorConfig()).embeddings
    assert embedding.tensor_path == "representations.tsv"
    assert list(embedding.sprite.single_image_dim) == [48, 48]
    assert read_tensor(str(run_dir / "logs" / "representations.tsv")).shape == (100, 32)
    assert len((run_dir / "logs" / "classes.tsv").read_text().splitlines()) == 100


def test_report_agrees_with_the_run(finished):
    """On its untrained network, its probe, its effective rank and its accuracies."""
    from byol_tf.config.loading import load_config
    from byol_tf.evaluate.features import embed
    from byol_tf.evaluate.knn import knn_accuracy
    from byol_tf.report.representations import analyze_representations, start_model
    from byol_tf.runs.data import probe_images
    from byol_tf.runs.encoders import load_run_encoder
    from byol_tf.runs.folder import RunFolder
    from byol_tf.runs.sources import source_options
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
    analysis = analyze_representations(config, load_run_encoder(config, folder), source)
    assert np.mean(analysis.predicted_labels == analysis.test_labels) == pytest.approx(
        result["probe_accuracy"], abs=0.011
    )  # one image
    shares = analysis.spectra["trained"][analysis.spectra["trained"] > 0]
    assert np.exp(-(shares * np.log(shares)).sum()) == pytest.approx(
        result["effective_rank"], rel=1e-3
    )
    page = folder.report.read_text(encoding="utf-8")
    assert f"{result['probe_accuracy']:.1%}" in page
    assert f"look:  {folder.report}" in done.stdout


def test_finished_run_is_not_trained_again(finished, capsys):
    folder, _, result = finished
    code, printed, _ = in_process(capsys, command(folder))
    assert code == 0
    assert "this run is finished" in printed
    assert "Epoch" not in printed
    assert json.loads(printed.splitlines()[-1]) == result


def rows_without_speed(history: Path) -> list[dict[str, str]]:
    """Returns the rows as written, without the column that no two runs share."""
    with history.open() as file:
        return [
            {
                name: value
                for name, value in row.items()
                if name not in ("images_per_second", "data_wait")
            }
            for row in csv.DictReader(file)
        ]


def interrupted(
    line: list[str], folder: Path, epoch: int, step: int, number: int
) -> tuple[int, str]:
    """Sends a command a signal once it has a checkpoint at or after a step of an epoch.

    Returns:
        Its exit code, and what it printed.
    """
    unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}  # else a killed process prints nothing
    process = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=unbuffered,
        preexec_fn=reset_handlers,
    )

    def has_checkpoint() -> bool:
        assert process.poll() is None
        return any(
            position_of(path) >= (epoch, step)
            for run_dir in folder.glob("runs/*")
            for path in list_checkpoints(run_dir / "checkpoints")
        )

    wait_until(has_checkpoint, pause=0.005)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=HANG)
    return process.returncode, printed


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 4, 8])
def test_commands_started_at_once_are_runs_of_their_own(tmp_path, count):
    line = command(tmp_path, "--set", "training.epochs=1", "--set", "run.report=false")
    processes = [
        subprocess.Popen([*line, "--set", f"seed={seed}"], stdout=subprocess.PIPE, text=True)
        for seed in range(count)
    ]
    printed = [process.communicate(timeout=HANG)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count
    results = [json.loads(text.splitlines()[-1]) for text in printed]
    for seed, result in enumerate(results):
        folder = Path(result["run_dir"])
        assert json.loads((folder / "config.json").read_text())["seed"] == seed
        assert json.loads((folder / "result.json").read_text()) == result
    assert len({result["weights_digest"] for result in results}) == count
    assert len(list((tmp_path / "runs").iterdir())) == count


@pytest.mark.long
def test_slower_command_does_not_enter_a_finished_run(tmp_path):
    """It has printed its plan and reads its photos, while another run begins and ends."""
    line = command(tmp_path, "--set", "training.epochs=1", "--set", "run.report=false")
    slow = subprocess.Popen([*line, "--set", "seed=2"], stdout=subprocess.PIPE, text=True)
    plan = ""
    while "run folder" not in plan:
        plan += slow.stdout.readline()
    slow.send_signal(signal.SIGSTOP)
    first = run(*line, "--set", "seed=1")
    slow.send_signal(signal.SIGCONT)
    printed, _ = slow.communicate(timeout=HANG)
    assert (first.returncode, slow.returncode) == (0, 0)
    results = [json.loads(text.splitlines()[-1]) for text in (first.stdout, printed)]
    assert len({result["run_dir"] for result in results}) == 2
    for seed, result in zip((1, 2), results, strict=True):
        assert json.loads((Path(result["run_dir"]) / "config.json").read_text())["seed"] == seed
    assert len({result["weights_digest"] for result in results}) == 2


@pytest.mark.long
def test_run_finds_its_photos_from_another_folder(tmp_path):
    """Where other photos have the same relative path."""
    rng = np.random.default_rng(0)
    for place in ("here", "elsewhere"):
        for number in range(40):
            folder = tmp_path / place / "photos" / ("a" if number % 2 else "b")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    line = command(tmp_path, "--set", "data.source=folder", "--set", "data.root=photos")
    settings = ["training.epochs=1", "training.batch_size=16", "run.report=false"]
    line += [word for setting in settings for word in ("--set", setting)]

    def run_in(place: str, *words: str) -> dict:
        done = subprocess.run(
            words,
            cwd=tmp_path / place,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=HANG,
        )
        assert done.returncode == 0, done.stderr
        assert "aren't those" not in done.stdout
        return json.loads(done.stdout.splitlines()[-1])

    run_dir = run_in("here", *line)["run_dir"]
    evaluate = [sys.executable, "-m", "byol_tf.evaluate", "knn", "--run", run_dir]
    first = run_in("here", *evaluate)
    assert run_in("elsewhere", *evaluate) | {"seconds": 0} == first | {"seconds": 0}
    assert run_in("elsewhere", *line)["run_dir"] != run_dir


# Views by keras-cv; tests/reliability/test_every_step.py has those made in the step.
@pytest.mark.long
def test_interrupted_run_ends_on_the_same_bits(finished, tmp_path):
    """Stopped by SIGTERM, then killed: order and random parameters are functions of the step."""
    often = command(tmp_path, "--set", "run.checkpoint_every_steps=1")
    code, printed = interrupted(often, tmp_path, 0, random.randint(1, 15), signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert (
        where := re.search(
            r"stopped by SIGTERM after epoch 0 of 3, step (\d+) of 22 in the next; saved", printed
        )
    )
    resume = [sys.executable, *shlex.split(printed.splitlines()[-1])[1:]]
    code, printed = interrupted(resume, tmp_path, 1, random.randint(1, 15), signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert f"resuming after epoch 0 of 3, step {where[1]} of 22 in the next" in printed
    resumed = run(*often)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"resuming after epoch 1 of 3, step \d+ of 22 in the next", resumed.stdout)
    assert len(list((tmp_path / "runs").iterdir())) == 1
    result = json.loads(resumed.stdout.splitlines()[-1])
    assert result["weights_digest"] == finished[2]["weights_digest"]
    assert result["steps"] == finished[2]["steps"]
    curves = [
        rows_without_speed(Path(run["run_dir"]) / "history.csv") for run in (result, finished[2])
    ]
    assert curves[0] == curves[1]


def in_process(capsys, line: list[str]) -> tuple[int, str, str]:
    """Runs a command line in this process; returns its exit code, stdout and stderr."""
    from byol_tf.train.__main__ import main

    code = main(line[3:])
    return code, *capsys.readouterr()


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    code, printed, _ = in_process(
        capsys, command(tmp_path, "--dry-run", "--set", "optimizer.reference_batch_size=128")
    )
    assert code == 0
    assert "1,437 for pre-training" in printed
    assert "3 epochs of 22 steps of 64 images: 66 steps" in printed
    assert "learning rate 0.001, cosine" in printed  # 0.002 x 64 / 128
    assert "0.99 to 1, cosine" in printed
    assert re.search(
        r"time +about [\d.,]+ \w+ of training left \([\d.,]+ to [\d.,]+, from [23] timings\), at ",
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
def test_mistakes_are_reported_before_a_folder_is_made(
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


def test_folder_of_another_config_is_refused(finished, capsys):
    folder, _, result = finished
    code, _, errors = in_process(
        capsys, command(folder, "--run-dir", result["run_dir"], "--set", "training.epochs=9")
    )
    assert code == 2
    assert "training.epochs: 3 there, 9 now" in errors
