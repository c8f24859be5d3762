"""The start of training: what it resumes from or refuses, and what it writes."""

import json
import shutil
from pathlib import Path

import pytest

from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import RunFolderError
from byol_tf.runs.checkpoints import list_checkpoints, read_newest, write_checkpoint
from byol_tf.runs.folder import RunFolder
from byol_tf.train.callbacks.checkpoint import model_arrays
from byol_tf.train.experiment import Experiment
from byol_tf.train.start import ResumePoint, initialize_or_resume
from tests.helpers.small_run import CONFIG, HISTORY


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


def start(experiment: Experiment) -> ResumePoint:
    return initialize_or_resume(
        experiment.config,
        experiment.folder,
        experiment.model,
        experiment.source,
        experiment.schedule,
        None,
        ["again"],
    )


def contents(folder: RunFolder) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in (folder.config, folder.environment, folder.history)
    }


def refusal(experiment: Experiment) -> str:
    """Why a run isn't resumed; its files are unchanged."""
    before = contents(experiment.folder)
    with pytest.raises(RunFolderError) as raised:
        start(experiment)
    assert contents(experiment.folder) == before
    return str(raised.value)


def test_resuming_keeps_the_first_environment_and_history(experiment):
    folder = experiment.folder
    first = json.loads(folder.environment.read_text())
    assert start(experiment)[:2] == (1, 0)
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
    assert start(experiment)[:2] == (0, 0)
