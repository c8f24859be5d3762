"""Fused views in training: in the step or on the host, with the parameters of host views."""

import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from byol_tf.config.schedule import training_schedule
from byol_tf.config.schema import Config
from byol_tf.models.ema import TargetUpdate, constant_tau
from byol_tf.models.from_config import build_model, compile_model, steps_per_execution
from byol_tf.runs.data import train_batches
from byol_tf.train.experiment import Experiment
from pipelines.batches import image_batches, view_batches
from pipelines.policy import preset
from pipelines.sources import ArrayImages

BATCH = 8
NO_COLOUR = {
    "jitter_probability": 0.0,
    "grayscale_probability": 0.0,
    "blur_probability": 0.0,
    "solarize_probability": 0.0,
}
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def config(**changes) -> Config:
    base = {
        "name": "x",
        "seed": 7,
        "data": {"source": "digits"},
        "views": {
            "size": 32,
            "engine": "fused",
            "first": NO_COLOUR,
            "second": NO_COLOUR,
            "mean": MEAN,
            "std": STD,
        },
        "encoder": {"name": "convnet", "width": 0.5},
        "projector": {"hidden_size": 32, "output_size": 16},
        "predictor": {"hidden_size": 48},
        "optimizer": {
            "name": "sgd",
            "base_learning_rate": 0.05,
            "reference_batch_size": None,
            "schedule": "constant",
        },
        "training": {"epochs": 10, "batch_size": BATCH},
    }
    return Config.model_validate_json(
        json.dumps(base | {key: base.get(key, {}) | value for key, value in changes.items()})
    )


def images(count: int = 24) -> ArrayImages:
    """Returns smooth images, so that two ways to resize agree."""
    waves = (
        np.sin(np.linspace(0, 3, 32))[None, :, None, None]
        * np.cos(np.linspace(0, 4, 32) + 1)[None, None, :, None]
    )
    scales = np.random.default_rng(0).uniform(20, 120, (count, 1, 1, 3))
    return ArrayImages((127 + scales * waves).astype(np.uint8))


def test_image_batches_have_the_order_of_view_batches():
    chosen = config()
    views = chosen.views
    policies = (views.first, views.second)
    host = view_batches(images(), policies, 32, BATCH, 7, MEAN, STD, first_step=2)
    raw = image_batches(images(), BATCH, 7, first_step=2)
    model = build_model(chosen)
    for made, (batch, params) in zip(host.take(3), raw.take(3), strict=True):
        assert batch.dtype == tf.uint8
        assert params.shape == (BATCH, 2, 48)
        for expected, layer in zip(made, model.views, strict=True):
            difference = np.abs(layer(batch, params) - expected)
            # Bicubic against bilinear; another image or crop differs by ten times that.
            assert float(difference.mean()) < 0.02
            assert float(np.abs(layer(batch[::-1], params) - expected).mean()) > 0.1


def trained(
    steps_per_execution: int = 1, gradient_accumulation_steps: int = 1, placement: str = "step"
):
    keras.utils.set_random_seed(0)
    chosen = config(
        views={"placement": placement},
        training={"gradient_accumulation_steps": gradient_accumulation_steps},
        encoder={"normalization": "layer"},
        projector={"normalization": "layer"},
        predictor={"normalization": "layer"},
        devices={"steps_per_execution": steps_per_execution, "strategy": "cpu"},
    )
    model = build_model(chosen)
    compile_model(model, chosen, training_schedule(chosen, 24))
    stream = train_batches(chosen, images())
    history = model.fit(
        stream,
        steps_per_epoch=3,
        epochs=2,
        callbacks=[TargetUpdate(constant_tau(0.9))],
        verbose=0,
        shuffle=False,
    ).history
    return model, history


@pytest.fixture(scope="module")
def one_step_at_a_time():
    return trained()


def test_views_in_step_and_on_host_train_alike(one_step_at_a_time):
    (model, history), (other, expected) = one_step_at_a_time, trained(placement="host")
    assert model.views is not None
    assert other.views is None
    assert history["loss"] == pytest.approx(expected["loss"], rel=1e-4)
    for one, same in zip(model.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(one.numpy(), same.numpy(), rtol=1e-3, atol=1e-5)


def test_crops_become_views_on_the_host():
    mixed = images()
    mixed.shape = None
    crops = next(iter(train_batches(config(), mixed)))
    views = next(iter(train_batches(config(views={"placement": "host"}), mixed)))
    layers = build_model(config(), cropped=True).views
    for layer, crop, view in zip(layers, crops, views, strict=False):
        np.testing.assert_allclose(view, layer(crop, crops[-1]), atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [{"steps_per_execution": 3}, {"gradient_accumulation_steps": 2}],
    ids=["three steps per execution", "two micro-batches"],
)
def test_views_in_step_with_several_steps_and_micro_batches(options, one_step_at_a_time):
    (one, one_history), (other, other_history) = one_step_at_a_time, trained(**options)
    assert other_history["loss"] == pytest.approx(one_history["loss"], rel=1e-4)
    for a, b in zip(one.trainable_variables, other.trainable_variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)


def test_step_with_views_compiles_with_xla():
    keras.utils.set_random_seed(0)
    policies = {
        name: policy.model_dump()
        for name, policy in zip(("first", "second"), preset("byol"), strict=True)
    }
    chosen = config(views=policies, devices={"jit_compile": "on"}, optimizer={"name": "lars"})
    model = build_model(chosen)
    compile_model(model, chosen, training_schedule(chosen, 24))
    assert model.jit_compile is True
    options = {
        "steps_per_epoch": 2,
        "callbacks": [TargetUpdate(constant_tau(0.9))],
        "verbose": 0,
        "shuffle": False,
    }
    assert np.isfinite(
        model.fit(image_batches(images(), BATCH, 7), **options).history["loss"]
    ).all()


@pytest.mark.parametrize(
    ("limit", "epoch_steps", "expected"),
    [(None, 60, 1), (16, 60, 15), (16, 97, 1), (16, 64, 16), (10**18, 60, 60)],
)
def test_steps_per_execution_divide_an_epoch(limit, epoch_steps, expected):
    chosen = config(devices={"steps_per_execution": limit})
    assert steps_per_execution(chosen, epoch_steps) == expected


def test_batching_images_of_several_shapes_is_refused():
    class Mixed(ArrayImages):
        def __init__(self, array):
            super().__init__(array)
            self.shape = None

    with pytest.raises(
        ValueError,
        match="images: expected images of one shape; received several, which crop_batches takes",
    ):
        image_batches(Mixed(np.zeros((9, 8, 8, 3), np.uint8)), 4, 0)


@pytest.mark.long
def test_run_on_photos_of_several_sizes(tmp_path, caplog):
    """The host makes a crop for each view, and the first of them set the scales."""
    (tmp_path / "photos").mkdir()
    for index, array in enumerate(
        np.random.default_rng(0).integers(0, 256, (17, 70, 70, 3), np.uint8)
    ):
        suffix = "png" if index % 3 == 0 else "jpg"
        Image.fromarray(array[: 40 + index, : 66 - 2 * index]).save(
            tmp_path / "photos" / f"{index}.{suffix}"
        )
    chosen = config(
        data={"source": "folder", "root": str(tmp_path / "photos")},
        training={"epochs": 2},
        **{part: {"normalization": "data_init"} for part in ("encoder", "projector", "predictor")},
        devices={"strategy": "cpu"},
        run={"report": False},
    )
    experiment = Experiment(chosen, tmp_path / "run")
    experiment.prepare()
    *crops, params = next(iter(train_batches(chosen, experiment.source.pretrain)))
    assert len(crops) == len(experiment.model.views) == 2
    assert {(crop.dtype, *crop.shape) for crop in crops} == {(tf.uint8, BATCH, 32, 32, 3)}
    assert params.shape == (BATCH, 2, 48)
    with caplog.at_level(logging.INFO):
        result = experiment.run(verbose=0)
    assert (result["steps"], result["pretrain_images"]) == (4, 17)
    assert np.isfinite(result["loss"])
    assert "scales and offsets set from 8 views" in caplog.messages
    assert (tmp_path / "run" / "figures" / "views.png").is_file()
