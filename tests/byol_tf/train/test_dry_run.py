"""Input and step are tried out for real."""

import json
import time

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.config.schema import Config
from byol_tf.devices import build_strategy
from byol_tf.train.dry_run import measure_throughput
from pipelines.sources import ArrayImages, LazyImages


def config(**changes) -> Config:
    base = {
        "name": "x",
        "data": {"source": "digits"},
        "views": {"size": 16},
        "encoder": {"name": "convnet", "width": 0.25},
        "projector": {"hidden_size": 16, "output_size": 16},
        "predictor": {"hidden_size": 16},
        "optimizer": {"base_learning_rate": 0.3},
        "training": {"epochs": 10, "batch_size": 128},
    }
    return Config.model_validate_json(json.dumps(base | changes))


def images(count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr("byol_tf.train.dry_run._SECONDS", 0.3)


def test_a_slow_reader_is_found_out():
    pixels = images()

    def read(index):
        time.sleep(0.005)
        return pixels[index]

    views = {"size": 16, "engine": "fused"}
    rates = measure_throughput(
        config(views=views), LazyImages(64, read, shape=(16, 16, 3)), build_strategy("cpu")
    )
    assert 20 < rates.input < 200 * 4 * rates.cores
    assert rates.on_cpu
    assert rates.batch == 64  # the images there are
    assert rates.bytes_per_image == 16 * 16 * 3 + 16
    assert rates.step > 0
    assert len(rates.steps) == 3
    assert 1 <= len(rates.inputs) <= 3


def test_on_a_device_a_part_of_an_accumulated_batch_is_tried_out(monkeypatch):
    monkeypatch.setattr("byol_tf.train.dry_run.on_cpu", lambda strategy: False)
    monkeypatch.setattr("byol_tf.train.dry_run._STEPS", 2)
    accumulating = config(
        views={"size": 16, "engine": "fused"},
        training={"epochs": 1, "batch_size": 32, "gradient_accumulation_steps": 4},
    )
    assert measure_throughput(accumulating, ArrayImages(images()), build_strategy("cpu")).batch == 8


def test_a_step_that_memory_does_not_hold_is_said_and_not_thrown(tmp_path, monkeypatch):
    from byol_tf.config.schedule import training_schedule
    from byol_tf.runs.folder import RunFolder
    from byol_tf.train import __main__ as train
    from byol_tf.train import dry_run as rates

    def full(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(rates, "measure_throughput", full)
    ((subject, text),) = train._measured(
        config(), training_schedule(config(), 1_797), RunFolder(tmp_path)
    )
    assert subject == "speed"
    assert (
        text.startswith("not measured: out of memory: a step on a batch of 128 images")
        and "OOM when allocating" in text
    )
