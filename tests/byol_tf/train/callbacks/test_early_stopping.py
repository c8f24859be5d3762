"""Runs that stop early and export their best epoch."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from byol_tf.config.loading import load_config
from byol_tf.config.schema import Config
from byol_tf.runs.checkpoints import list_checkpoints
from byol_tf.runs.encoders import load_encoder_file, load_run_encoder
from byol_tf.runs.folder import RunFolder, read_history
from byol_tf.runs.summary import read_facts
from byol_tf.train import experiment
from byol_tf.train.experiment import Experiment
from tests.helpers.small_run import CONFIG

ACCURACIES = (0.5, 0.7, 0.6, 0.6, 0.9)


class Scripted(keras.callbacks.Callback):
    """Replaces the probe's accuracy, and fails in an epoch."""

    def __init__(self, fails_in: int | None = None):
        super().__init__()
        self.fails_in = fails_in

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.fails_in:
            raise RuntimeError("killed")

    def on_epoch_end(self, epoch, logs=None):
        logs["probe_accuracy"] = ACCURACIES[epoch]


@pytest.fixture
def config(tmp_path) -> Config:
    changes = {
        "views": {"size": 8},
        "training": {"epochs": 5, "batch_size": 32, "deterministic": True},
        "probe": {"split": "held_out", "neighbours": 3},
        "monitor": {"early_stopping": 2},
        "run": {"export": "best", "keep_checkpoints": 2, "report": False},
    }
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    return load_config(tmp_path / "config.json")


def run_of(config: Config, root: Path, fails_in: int | None = None) -> dict:
    draw = np.random.default_rng(0)
    pixels, labels = draw.integers(0, 256, (64, 8, 8, 3), dtype=np.uint8), np.arange(64) % 2
    images = {"train": (pixels, labels)}  # no test images at all
    callbacks = [Scripted(fails_in)]
    return Experiment(config, root, images=images, callbacks=callbacks).run(verbose=False)


def test_run_stops_early_and_exports_the_best_epoch(config, tmp_path):
    result = run_of(config, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert (result["epochs"], result["exported_epoch"], result["steps"]) == (4, 2, 8)
    assert (result["probe_accuracy"], result["test_images"]) == (0.7, 12)
    assert [row.get("best_epoch") for row in read_history(folder.history)] == [None, 1, 2, 2, 2]
    assert [path.name for path in list_checkpoints(folder.checkpoints)] == [
        "epoch-0002",
        "epoch-0003",
        "epoch-0004",
    ]
    assert result["verdict"][-2:] == [
        "It stopped early, after epoch 4 of 5: the last 2 measurements didn't raise the accuracy "
        "of the linear probe.",
        "The exported encoder is that of epoch 2, which has the highest accuracy of the linear "
        "probe.",
    ]
    assert read_facts(folder).first_and_last("probe_accuracy")[1] == 0.7
    photos = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    exported = load_encoder_file(folder.export / "encoder.keras")(photos)
    saved = load_config(folder.config)
    np.testing.assert_allclose(load_run_encoder(saved, folder)(photos), exported, atol=1e-5)
    last = saved.model_copy(update={"run": config.run.model_copy(update={"export": "last"})})
    assert np.abs(load_run_encoder(last, folder)(photos) - exported).max() > 1e-3


@pytest.mark.long
def test_resumed_run_stops_at_the_same_epoch_with_the_same_best(config, tmp_path, monkeypatch):
    expected = run_of(config, tmp_path / "whole")
    for fails_in in (1, 3):
        with pytest.raises(RuntimeError, match="killed"):
            run_of(config, tmp_path / "run", fails_in)
    with monkeypatch.context() as patch:  # it has stopped, and not yet written what it exports
        patch.setattr(experiment, "supervised_accuracy", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_of(config, tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    result = run_of(config, tmp_path / "run")
    for key in ("epochs", "exported_epoch", "steps", "weights_digest", "probe_accuracy", "verdict"):
        assert result[key] == expected[key], key
