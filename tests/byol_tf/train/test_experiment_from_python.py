"""`Experiment` with an encoder, images and callbacks from Python."""

import json
import os
import signal

import keras
import numpy as np
import pytest

from byol_tf import Experiment, RunFolder, load_config, load_run_encoder
from byol_tf.errors import ConfigError, Interrupted
from tests.helpers.small_run import CONFIG

SIZE = 16


def encoder(image_size: int = SIZE) -> keras.Model:
    """Ends in a map, and has dropout."""
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(8, 3, strides=2)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.ReLU()(keras.layers.BatchNormalization()(x)))
    return keras.Model(inputs, x)


def images() -> dict[str, object]:
    draw = np.random.default_rng(0)

    def some(count: int) -> np.ndarray:
        return draw.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)

    labels = np.arange(32) % 2
    return {"unlabelled": some(64), "train": (some(32), labels), "test": (some(32), labels)}


@pytest.fixture
def config(tmp_path):
    changes = {
        "encoder": {},
        "views": {"size": SIZE, "engine": "fused"},
        "training": {"epochs": 2, "batch_size": 16, "deterministic": True},
        "probe": {"neighbours": 3},
        "run": {"report": False},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | changes))
    return load_config(path)


class Recorder(keras.callbacks.Callback):
    """Keeps what an epoch's end knows, and stops at a step of the second epoch if asked to."""

    def __init__(self, stop: bool = False) -> None:
        super().__init__()
        self.stop, self.epoch, self.accuracies = stop, 0, []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.stop and self.epoch == 1 and batch == 2:
            raise RuntimeError("stopped")

    def on_epoch_end(self, epoch, logs=None):
        self.accuracies.append(logs["probe_accuracy"])


@pytest.mark.long
def test_own_encoder_images_and_callback_are_used_and_resumed(config, tmp_path):
    whole, broken, rest = Recorder(), Recorder(stop=True), Recorder()
    own = images()
    expected = Experiment(
        config, tmp_path / "whole", encoder=encoder, images=own, callbacks=[whole]
    ).run(verbose=0)
    with pytest.raises(RuntimeError, match="stopped"):
        Experiment(config, tmp_path / "run", encoder=encoder, images=own, callbacks=[broken]).run(
            verbose=0
        )
    resumed = Experiment(config, tmp_path / "run", encoder=encoder, images=own, callbacks=[rest])
    assert "arrays: 64 for pre-training" in str(resumed.plan())
    result = resumed.run(verbose=0)
    assert (len(whole.accuracies), len(broken.accuracies), len(rest.accuracies)) == (2, 1, 1)
    assert result["weights_digest"] == expected["weights_digest"]
    assert result["pretrain_images"] == 64

    # Without the code that built it
    folder = RunFolder(tmp_path / "run")
    saved = load_config(folder.config)
    assert (saved.encoder.name, saved.data.source) == ("keras.Model", "arrays")
    photos = own["test"][0]
    np.testing.assert_allclose(
        load_run_encoder(saved, folder)(photos), resumed.inference(photos), rtol=1e-5, atol=1e-6
    )


class Signals(keras.callbacks.Callback):
    """Sends SIGTERM at the last step of the first epoch."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch + 1 == self.params["steps"]:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.long
def test_callback_that_opens_a_file_goes_on_after_a_stop_at_an_epochs_last_step(config, tmp_path):
    def run(*callbacks: keras.callbacks.Callback) -> dict:
        return Experiment(
            config, tmp_path / "run", encoder=encoder, images=images(), callbacks=[*callbacks]
        ).run(verbose=0)

    with pytest.raises(Interrupted):
        run(Signals())
    run(keras.callbacks.CSVLogger(tmp_path / "log.csv", append=True))
    rows = (tmp_path / "log.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1"]


def test_run_starts_from_the_weights_of_a_given_model(config, tmp_path):
    own = encoder()
    experiment = Experiment(config, tmp_path / "run", encoder=own, images=images())
    experiment.prepare()
    for network in (experiment.model.encoder, experiment.model.target_encoder):
        for weight, given in zip(network.get_weights(), own.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, given)


def test_encoder_of_another_size_is_refused_before_anything_is_written(config, tmp_path):
    experiment = Experiment(config, tmp_path / "run", encoder=encoder(32), images=images())
    with pytest.raises(ConfigError, match="expected a model of images"):
        experiment.plan()
    assert not (tmp_path / "run").exists()
