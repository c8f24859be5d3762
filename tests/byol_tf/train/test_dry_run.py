"""Throughput of input and step, measured and in words."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from byol_tf.config.loading import load_config
from byol_tf.config.schedule import training_schedule
from byol_tf.config.schema import Config
from byol_tf.devices import build_strategy
from byol_tf.errors import ConfigError
from byol_tf.runs.folder import RunFolder
from byol_tf.train import dry_run
from byol_tf.train.dry_run import (
    ThroughputEstimate,
    measure_lines,
    measure_throughput,
    reading_lines,
    remedies,
    throughput_lines,
)
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
    monkeypatch.setattr(dry_run, "_INPUT_SECONDS", 0.3)


def test_a_slow_reader_lowers_the_measured_input():
    """One image takes 5 ms, so a thread gives at most 200 a second; there are at most 4 per core."""
    pixels = images()

    def read(index):
        time.sleep(0.005)
        return pixels[index]

    views = {"size": 16, "engine": "fused"}
    estimate = measure_throughput(
        config(views=views), LazyImages(64, read, shape=(16, 16, 3)), build_strategy("cpu")
    )
    assert 0 < estimate.input < 200 * 4 * estimate.cores
    assert estimate.on_cpu
    assert estimate.batch_size == 64  # all the images
    # The image, and 48 random parameters for each of two views.
    assert estimate.bytes_per_image == 16 * 16 * 3 + 2 * 48 * 4
    assert estimate.step > 0
    assert len(estimate.steps) == 3
    assert 1 <= len(estimate.inputs) <= 3


def test_accelerator_is_timed_on_one_micro_batch(monkeypatch):
    monkeypatch.setattr(dry_run, "on_cpu", lambda strategy: False)
    monkeypatch.setattr(dry_run, "_STEPS", 2)
    accumulating = config(
        views={"size": 16, "engine": "fused"},
        training={"epochs": 1, "batch_size": 32, "gradient_accumulation_steps": 4},
    )
    estimate = measure_throughput(accumulating, ArrayImages(images()), build_strategy("cpu"))
    assert estimate.batch_size == 8


def test_out_of_memory_is_reported_not_raised(tmp_path, monkeypatch):
    def fail(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(dry_run, "measure_throughput", fail)
    ((subject, text),) = measure_lines(
        config(), RunFolder(tmp_path), training_schedule(config(), 1_797)
    )
    assert subject == "speed"
    assert text.startswith("not measured: out of memory: a step on a batch of 128 images")
    assert "OOM when allocating" in text


def test_reading_counts_where_it_takes_long():
    assert reading_lines(0.001, 6_000) == []
    assert reading_lines(0.25, 6_000) == [
        ("reading", "about 25.0 minutes to decode all images once, at 4 images/s")
    ]


class TestLines:
    def lines(self, **changes) -> dict[str, str]:
        usual = {
            "inputs": (4000.0,),
            "steps": (500.0,),
            "cores": 2,
            "bytes_per_image": 30_000,
            "batch_size": 64,
            "on_cpu": False,
        }
        estimate = ThroughputEstimate(**(usual | changes))
        return dict(throughput_lines(estimate, 3_600_000, "views.engine=fused"))

    def test_fast_input(self):
        assert self.lines() == {
            "input": "4,000 images/s alone, on 2 cores; 30.0 kB an image to the step",
            "step": "500 images/s, timed in batches of 64",
            "feeding": "1 such device: 0.25 cores, 15 MB/s; 8 such devices: 2 cores, 120 MB/s",
            "time": "about 2.0 hours of training left, at 500 images/s",
        }

    def test_several_timings_give_a_range(self):
        steps = (500.0, 400.0, 625.0)
        text = self.lines(inputs=(4000.0, 4400.0, 3600.0), steps=steps)["time"]
        assert text == (
            "about 2.0 hours of training left (1.6 to 2.5, from 3 timings), at 500 images/s"
        )
        # 3,600,000 images; on a CPU the two add up: 1 / 625 + 1 / 4400 s an image at the best.
        assert (
            " (1.8 to 2.8, from 3 timings), at 444 "
            in self.lines(inputs=(4000.0, 4400.0, 3600.0), steps=steps, on_cpu=True)["time"]
        )

    def test_input_and_step_share_a_cpu(self):
        assert self.lines(on_cpu=True)["time"].endswith(", at 444 images/s")
        assert "feeding" not in self.lines(on_cpu=True)  # which nobody plans by

    def test_slow_input_gives_a_warning(self):
        lines = self.lines(inputs=(100.0,))
        assert lines["time"] == "about 10.0 hours of training left, at 100 images/s"
        text = (
            "the input is slower than the step, which waits 80% of the time. It would take 10 "
            "cores like these"
        )
        assert lines["warning"] == f"{text}, or less work for each image: views.engine=fused"


SMALLER = "photos made smaller once (data.image_size with data.cache=memory)"


@pytest.mark.parametrize(
    ("recipe", "changes", "text"),
    [
        ("demo", (), "views.engine=fused"),
        ("demo", ("views.engine=fused",), ""),
        ("demo", ("views.engine=fused", "views.placement=host"), "views.placement=step"),
        ("few-photos", (), ""),
        ("few-photos", ("data.cache=none",), SMALLER),
        ("imagenet-300", ("views.engine=keras_cv",), f"views.engine=fused, or {SMALLER}"),
    ],
)
def test_remedies_for_slow_input(recipe, changes, text):
    assert remedies(load_config(recipe, changes)) == text


def test_batch_that_the_replicas_do_not_divide_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(
        dry_run, "build_strategy", lambda *_: SimpleNamespace(num_replicas_in_sync=8)
    )
    uneven = config(training={"epochs": 10, "batch_size": 12})
    with pytest.raises(ConfigError, match=r"training.batch_size: expected a multiple of 8"):
        measure_lines(uneven, RunFolder(tmp_path), training_schedule(uneven, 1000))
