"""Where a run begins: what of its folder it goes on from, and what it refuses before anything there
is overwritten."""

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
from tests.helpers.small_run import CONFIG, HISTORY


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, Experiment]:
    """The folder of a run after its only epoch, and what is to go on with it."""
    folder = RunFolder(tmp_path_factory.mktemp("experiment") / "run")
    folder.root.mkdir()
    folder.config.write_text(json.dumps(CONFIG))
    experiment = Experiment(load_config(folder.config), folder, lambda line: None)
    folder.begin(resolved_json(experiment.config), ["first"], experiment.source.fingerprint, ())
    folder.history.write_text(HISTORY)
    write_checkpoint(
        folder.checkpoints,
        1,
        0,
        model_arrays(experiment.model),
        {"images": experiment.source.fingerprint},
    )
    return folder.root, experiment


@pytest.fixture
def run(written, tmp_path) -> Experiment:
    """That, in a copy of the folder."""
    root, experiment = written
    shutil.copytree(root, tmp_path / "run")
    experiment.folder, experiment.say = RunFolder(tmp_path / "run"), lambda line: None
    return experiment


def files(folder: RunFolder) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in (folder.config, folder.environment, folder.history)
    }


def refused(run: Experiment) -> str:
    """Why a run doesn't begin; nothing of it has changed."""
    before = files(run.folder)
    with pytest.raises(RunFolderError) as raised:
        run._begin(["again"])
    assert files(run.folder) == before
    return str(raised.value)


def test_it_goes_on_and_keeps_what_it_was_begun_with(run):
    begun = json.loads(run.folder.environment.read_text())
    assert run._begin(["again"])[:2] == (1, 0)
    now = json.loads(run.folder.environment.read_text())
    assert (now["command"], now["begun"]) == (["again"], begun)
    assert run.folder.history.read_text() == HISTORY


def test_a_checkpoint_of_another_model_is_refused(run):
    (path,), (checkpoint, _) = (
        list_checkpoints(run.folder.checkpoints),
        read_newest(run.folder.checkpoints),
    )
    name = next(name for name, array in checkpoint.arrays.items() if array.ndim == 4)
    shutil.rmtree(path)
    write_checkpoint(
        run.folder.checkpoints,
        1,
        0,
        checkpoint.arrays | {name: checkpoint.arrays[name][..., :-1]},
        {},
    )
    assert (
        "expected those of the model that config.json describes; the checkpoint doesn't fit this "
        "model: 1 variables" in refused(run)
    )


def test_a_trained_run_without_its_checkpoints_is_refused(run):
    shutil.rmtree(run.folder.checkpoints / "epoch-0001")
    assert (
        f"{run.folder.checkpoints}: expected checkpoints, as the run's history has 1 epoch(s); "
        "found none" in refused(run)
    )


def test_one_that_stopped_before_its_first_checkpoint_begins_anew(run):
    run.folder.history.write_text("".join(HISTORY.splitlines(keepends=True)[:2]))
    shutil.rmtree(run.folder.checkpoints / "epoch-0001")
    assert run._begin(["again"])[:2] == (0, 0)
