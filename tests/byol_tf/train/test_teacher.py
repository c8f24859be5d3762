"""A run with a teacher: exact resume, and the teachers that are refused."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from byol_tf import build_encoder, inference_model
from byol_tf.config.loading import load_config
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.models.inference import exported_form
from byol_tf.report.representations import start_model
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.train.callbacks.checkpoint import model_arrays
from byol_tf.train.experiment import Experiment
from byol_tf.train.teacher import load_teacher
from tests.helpers.small_run import CONFIG

EPOCHS = 2


def teacher_file(folder: Path, seed: int = 0, scale: float = 1.0, offset: float = 0.0) -> Path:
    """Saves an encoder with random weights; scale and offset are its last normalisation's."""
    keras.utils.set_random_seed(seed)
    encoder = build_encoder("convnet", 16, width=0.25)
    last = [layer for layer in encoder.layers if layer.weights][-1]
    last.gamma.assign(scale * np.ones(last.gamma.shape))
    last.beta.assign(offset * np.ones(last.beta.shape))
    inference = inference_model(encoder, 16, (0.4, 0.5, 0.6), (0.3, 0.2, 0.1))
    folder.mkdir(exist_ok=True)
    exported_form(inference).save(folder / "encoder.keras")
    return folder / "encoder.keras"


def experiment(root: Path, teacher: Path | str) -> Experiment:
    changes = {
        "objective": {"target": "teacher", "teacher": str(teacher)},
        "projector": {"hidden_size": 16},
        "predictor": {"kind": "none"},
        "training": {"epochs": EPOCHS, "batch_size": 64},
        "data": {"source": "digits", "pretrain_images": 128},
        "probe": {"train_images": 20, "test_images": 20, "neighbours": 5},
        "run": {"report": False},
    }
    file = root.with_suffix(".json")
    file.write_text(json.dumps(CONFIG | changes))
    return Experiment(load_config(file), root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> tuple[Path, dict]:
    """The folder of a run of two epochs, beside its teacher, and its result."""
    folder = tmp_path_factory.mktemp("distilled")
    teacher_file(folder / "teacher")
    run = experiment(folder / "run", folder / "teacher")
    return folder, run.run(verbose=0)


@pytest.fixture
def interrupted(finished, tmp_path) -> Path:
    """A copy of that folder as it was after the first epoch."""
    shutil.copytree(finished[0], tmp_path / "distilled")
    run = tmp_path / "distilled" / "run"
    (run / "result.json").unlink()
    last = list_checkpoints(run / "checkpoints")[-1]
    shutil.rmtree(last)
    return tmp_path / "distilled"


def test_resumed_run_ends_on_the_same_bits(finished, interrupted):
    """With the teacher in another place, and as another of the forms that it may have."""
    (interrupted / "teacher").rename(interrupted / "moved")
    run = experiment(interrupted / "run", interrupted / "moved" / "encoder.keras")
    result, first = run.run(verbose=0), finished[1]
    assert result["weights_digest"] == first["weights_digest"]
    assert (result["system"], result["steps"]) == ("distillation", first["steps"])
    assert result["teacher"] == str(interrupted / "moved" / "encoder.keras")


def test_changed_teacher_is_refused(interrupted):
    teacher_file(interrupted / "teacher", seed=1)
    with pytest.raises(RunFolderError, match="started with another teacher than"):
        experiment(interrupted / "run", interrupted / "teacher").run(verbose=0)


def test_missing_teacher_is_refused(interrupted):
    shutil.rmtree(interrupted / "teacher")
    with pytest.raises(ConfigError, match=r"objective\.teacher: .*: expected a run folder, the"):
        experiment(interrupted / "run", interrupted / "teacher").run(verbose=0)


@pytest.mark.parametrize("teacher", ["hf://encoder", "/nothing"])
def test_messages_name_the_key_alone(tmp_path, teacher):
    with pytest.raises(ConfigError, match=f"^objective.teacher: {teacher}: expected "):
        load_teacher(experiment(tmp_path / "run", teacher).config)


def test_network_before_training_is_rebuilt_from_the_seed(tmp_path):
    run = experiment(tmp_path / "run", teacher_file(tmp_path / "teacher"))
    run.prepare()
    for ours, rebuilt in zip(
        run.inference.get_weights(), start_model(run.config).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, rebuilt)


def test_checkpoints_hold_no_teacher(finished):
    folder, _ = finished
    (newest,) = list_checkpoints(folder / "run" / "checkpoints")[-1:]
    state = json.loads((newest / "state.json").read_text())
    assert len(state["teacher"]) == 64
    assert newest.stat().st_size < 1e6
    run = Experiment(load_config(folder / "run" / "config.json"), folder / "run")
    run.prepare()
    assert not [name for name in model_arrays(run.model) if "teacher" in name]


@pytest.mark.parametrize(("scale", "offset"), [(0.0, 0.0), (1e-3, 1.0)])
def test_teacher_without_differences_is_refused(tmp_path, scale, offset):
    teacher = teacher_file(tmp_path / "teacher", scale=scale, offset=offset)
    with pytest.raises(ConfigError, match="expected an encoder whose representations differ from"):
        experiment(tmp_path / "run", teacher).prepare()
    assert not (tmp_path / "run").exists()


def test_plan_names_the_teacher(tmp_path):
    teacher = teacher_file(tmp_path / "teacher")
    plan = str(experiment(tmp_path / "run", teacher).plan())
    assert f"teacher       {teacher}" in plan
    assert "none, the teacher stays as it is" in plan
    with pytest.raises(ConfigError, match=r"objective.teacher: .*expected a .keras file of a mod"):
        (tmp_path / "broken.keras").write_bytes(b"no model")
        experiment(tmp_path / "run", tmp_path / "broken.keras").plan()
