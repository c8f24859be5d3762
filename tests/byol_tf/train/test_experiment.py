"""Experiments: what making and preparing one costs, and which folder a run enters."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from byol_tf import devices
from byol_tf.config.loading import load_config, resolved_json
from byol_tf.errors import ConfigError, RunFolderError
from byol_tf.models.inference import split_inference_model
from byol_tf.report.representations import start_model
from byol_tf.runs.encoders import load_run_encoder
from byol_tf.runs.folder import RunFolder
from byol_tf.train.experiment import Experiment
from tests.helpers.small_run import CONFIG, HISTORY, write_run
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


def test_whole_images_are_encoded_at_their_own_size(tmp_path):
    """By the run itself, by what reads its folder, and from its first weights."""
    config_json = CONFIG | {"views": {"size": 24}, "encoder": {"name": "convnet", "width": 0.25}}
    folder = write_run(tmp_path / "run", config_json)
    config = load_config(folder.config, ["encoder.inference_size=32"])
    experiment = Experiment(config, tmp_path / "other")
    experiment.prepare()
    models = [experiment.inference, load_run_encoder(config, folder), start_model(config)]
    assert {model.get_layer("centre").height for model in models} == {32}
    assert {split_inference_model(model)[2].input_shape for model in models} == {(None, 32, 32, 3)}
    assert experiment.model.encoder.input_shape == (None, 24, 24, 3)
    assert ("views", "24 x 24, preset byol, engine keras; whole images at 32 x 32") in (
        experiment.plan().lines
    )


def flattened(image_size: int) -> keras.Model:
    layers = [keras.layers.Flatten(), keras.layers.Dense(8)]
    return keras.Sequential([keras.Input((image_size, image_size, 3)), *layers], name="flat")


def test_encoder_from_python_keeps_the_keys_that_suit_any_network(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(CONFIG | {"training": {"epochs": 20, "batch_size": 64}})
    )
    kept = ["frozen_epochs=1", "freeze_batch_norm=true", "inference_size=24", "weights=e.keras"]
    config = load_config(tmp_path / "config.json", [f"encoder.{each}" for each in kept])
    given = Experiment(config, tmp_path / "run", encoder=flattened).config.encoder
    assert given == config.encoder.model_copy(update={"name": "keras.Model", "width": 1.0})


def test_plan_refuses_a_size_that_the_encoder_does_not_take(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"views": {"size": 24}}))
    config = load_config(tmp_path / "config.json", ["encoder.inference_size=32"])
    experiment = Experiment(config, tmp_path / "run", encoder=flattened)
    with pytest.raises(ConfigError, match=r"^encoder.inference_size: expected 24, the only size"):
        experiment.plan()


def test_precision_is_that_of_the_networks_and_not_of_the_process(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = load_config(tmp_path / "config.json", ["devices.precision=mixed_bfloat16"])
    experiment = Experiment(config, tmp_path / "run")
    experiment.prepare()
    assert keras.config.dtype_policy().name == "float32"
    assert {layer.compute_dtype for layer in experiment.model.encoder.layers[1:]} == {"bfloat16"}
    assert experiment.model.compute_dtype == "bfloat16"


@pytest.mark.parametrize(("fast", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_automatic_precision_is_that_of_the_machine(tmp_path, monkeypatch, fast, dtype):
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda strategy: fast)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = load_config(tmp_path / "config.json", ["devices.precision=auto"])
    experiment = Experiment(config, tmp_path / "run")
    experiment.prepare()
    assert experiment.model.compute_dtype == dtype
    assert experiment.precision.endswith(dtype)
    assert f"{experiment.precision} (auto)" in str(experiment.plan())


def test_run_of_another_config_is_not_entered(tmp_path):
    """Though the folder was free when this run chose it."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = load_config(tmp_path / "config.json")
    folder = RunFolder(tmp_path / "run")
    folder.begin(resolved_json(config), ["first"], "images", ())
    folder.history.write_text(HISTORY)
    files = (folder.config, folder.environment, folder.history)
    before = [path.read_bytes() for path in files]
    other = Experiment(config.model_copy(update={"seed": 5}), folder.root)
    with pytest.raises(
        RunFolderError, match="started with another config:\n  seed: 0 there, 5 now"
    ):
        other.run()
    assert [path.read_bytes() for path in files] == before
