"""Experiments: what making one costs, and what a run resumes from or refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import RunFolderError
from byol_tf.runs.checkpoints import list_checkpoints, read_newest, write_checkpoint
from byol_tf.runs.folder import RunFolder
from byol_tf.train.callbacks.checkpoint import model_arrays
from byol_tf.train.experiment import Experiment
from tests.helpers.small_run import CONFIG, HISTORY
from tests.helpers.waiting import HANG

ROOT = Path(__file__).parents[3]
CONSTRUCTING = """
import sys
from byol_tf.config.loading import load_config
from byol_tf.train.experiment import Experiment
from tensorflow.python.eager import context

folder, photos = sys.argv[1:]
configs = [
    load_config("stl10", [f"data.root={folder}/absent"]),  # it would have to be downloaded
    load_config("photos", [f"data.root={photos}"]),
]
events = []
sys.addaudithook(lambda event, arguments: events.append(event))
for config in configs:
    Experiment(config, f"{folder}/run")
touched = [event for event in events if event.startswith(("open", "os.", "socket.", "shutil.", "subprocess."))]
print(touched, context.context()._context_handle)
"""


def test_constructing_touches_nothing(tmp_path):
    """No file, folder or socket, and TensorFlow's runtime isn't started; in a new process."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "photos" / "1.png")
    done = subprocess.run(
        [sys.executable, "-c", CONSTRUCTING, str(tmp_path), str(tmp_path / "photos")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.stdout == "[] None\n", done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1.png", "photos"]


def test_plan_and_run_come_from_one_object(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    experiment = Experiment(load_config(tmp_path / "config.json"), tmp_path / "run")
    plan = experiment.plan()
    assert experiment.plan() is plan
    assert not experiment.folder.root.exists()
    experiment.prepare()
    assert experiment.schedule == plan.schedule
    model = experiment.model
    experiment.prepare()
    assert experiment.model is model
    assert not experiment.folder.root.exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Experiment]:
    """The folder of a run after its only epoch, and a prepared experiment of its config."""
    root = tmp_path_factory.mktemp("experiment") / "run"
    root.mkdir()
    (root / "config.json").write_text(json.dumps(CONFIG))
    experiment = Experiment(load_config(root / "config.json"), root)
    experiment.prepare()
    folder, images = experiment.folder, experiment.source.fingerprint
    folder.begin(resolved_json(experiment.config), ["first"], images, ())
    folder.history.write_text(HISTORY)
    write_checkpoint(folder.checkpoints, 1, 0, model_arrays(experiment.model), {"images": images})
    return root, experiment


@pytest.fixture
def experiment(trained, tmp_path) -> Experiment:
    """The same experiment in a copy of the folder."""
    root, experiment = trained
    shutil.copytree(root, tmp_path / "run")
    experiment.folder = RunFolder(tmp_path / "run")
    return experiment


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in (folder.config, folder.environment, folder.history)
    }


def refusal(experiment: Experiment) -> str:
    """Why a run isn't resumed; its files are unchanged."""
    before = contents(experiment.folder)
    with pytest.raises(RunFolderError) as raised:
        experiment._initialize_or_resume(["again"])
    assert contents(experiment.folder) == before
    return str(raised.value)


def test_run_of_another_config_is_not_entered(experiment):
    """Though the folder was free when this run chose it."""
    before = contents(experiment.folder)
    other = Experiment(experiment.config.model_copy(update={"seed": 5}), experiment.folder.root)
    with pytest.raises(
        RunFolderError, match="started with another config:\n  seed: 0 there, 5 now"
    ):
        other.run()
    assert contents(experiment.folder) == before


def test_resuming_keeps_the_first_environment_and_history(experiment):
    folder = experiment.folder
    first = json.loads(folder.environment.read_text())
    assert experiment._initialize_or_resume(["again"])[:2] == (1, 0)
    now = json.loads(folder.environment.read_text())
    assert (now["command"], now["begun"]) == (["again"], first)
    assert folder.history.read_text() == HISTORY


def test_checkpoint_of_another_model_is_refused(experiment):
    checkpoints = experiment.folder.checkpoints
    (path,), (checkpoint, _) = list_checkpoints(checkpoints), read_newest(checkpoints)
    name = next(name for name, array in checkpoint.arrays.items() if array.ndim == 4)
    shutil.rmtree(path)
    smaller = checkpoint.arrays | {name: checkpoint.arrays[name][..., :-1]}
    write_checkpoint(checkpoints, 1, 0, smaller, {})
    assert (
        "expected those of the model that config.json describes; the checkpoint doesn't fit this "
        "model: 1 variables" in refusal(experiment)
    )


def test_history_without_checkpoints_is_refused(experiment):
    shutil.rmtree(experiment.folder.checkpoints / "epoch-0001")
    assert (
        f"{experiment.folder.checkpoints}: expected checkpoints, as the run's history has 1 "
        "epoch(s); found none" in refusal(experiment)
    )


def test_run_without_a_trained_epoch_restarts(experiment):
    folder = experiment.folder
    folder.history.write_text("".join(HISTORY.splitlines(keepends=True)[:2]))
    shutil.rmtree(folder.checkpoints / "epoch-0001")
    assert experiment._initialize_or_resume(["again"])[:2] == (0, 0)
