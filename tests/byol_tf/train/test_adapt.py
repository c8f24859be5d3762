"""A run that adapts an encoder: frozen first, then at rates by depth; exact resume and its result."""

import json
import shutil

import pytest

from byol_tf.config.loading import load_config
from byol_tf.models.from_config import build_config_encoder
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.train.closing import closing_text
from byol_tf.train.experiment import Experiment
from tests.helpers.small_run import CONFIG

CHANGES = {
    "optimizer": {"base_learning_rate": 0.01, "warmup_epochs": 1, "layer_decay": 0.5},
    "training": {"epochs": 3, "batch_size": 64},
    "data": {"source": "digits", "pretrain_images": 128},
    "probe": {"train_images": 20, "test_images": 20, "neighbours": 5},
    "run": {"report": False},
}


@pytest.mark.long
def test_adapted_run_resumes_on_the_same_bits_and_closes_with_its_start(tmp_path):
    file, weights = tmp_path / "config.json", tmp_path / "encoder.weights.h5"
    encoder = CONFIG["encoder"] | {"weights": str(weights), "frozen_epochs": 1}
    file.write_text(json.dumps(CONFIG | CHANGES | {"encoder": encoder}))
    config = load_config(file)
    build_config_encoder(config).save_weights(weights)
    experiment = Experiment(config, tmp_path / "run")
    result = experiment.run(verbose=0)
    assert "at start" in closing_text(result, experiment.folder)

    shutil.copytree(tmp_path / "run", tmp_path / "resumed")
    (tmp_path / "resumed" / "result.json").unlink()
    for later in list_checkpoints(tmp_path / "resumed" / "checkpoints")[1:]:
        shutil.rmtree(later)
    weights.unlink()  # not needed any more
    resumed = Experiment(config, tmp_path / "resumed").run(verbose=0)
    assert resumed["weights_digest"] == result["weights_digest"]
    assert resumed["steps"] == result["steps"] == 6
