"""Tests of inference models: uint8 images of any size in, float32 representations out."""

import zipfile
from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.compat import all_layers
from byol_tf.export.saved_model import write_saved_model
from byol_tf.models.inference import (
    exported_form,
    inference_model,
    plain_encoder,
    split_inference_model,
    takes_pixels,
)
from byol_tf.models.networks import (
    NORMALIZATIONS,
    BatchNorm,
    DataInit,
    GroupNorm,
    WSConv2D,
    WSDense,
    build_encoder,
)
from byol_tf.runs.encoders import load_encoder_file
from tests.helpers.layer_harness import random_weights, relative_error
from tests.reference import networks as reference

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
SIZE = 16


def with_random_statistics(encoder: keras.Model) -> keras.Model:
    """Sets an encoder's moving statistics to random numbers."""
    rng = np.random.default_rng(0)
    for variable in encoder.non_trainable_variables:
        values = (
            rng.normal(0.0, 0.1, variable.shape)
            if variable.name == "moving_mean"
            else rng.uniform(0.2, 0.8, variable.shape)
        )
        variable.assign(values)
    return encoder


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    return with_random_statistics(build_encoder("convnet", SIZE, width=0.25))


def photos(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


@pytest.fixture
def seeing_a_gpu(monkeypatch):
    """Makes Keras believe that there is a GPU, so that it compiles models with XLA.

    XLA runs on the CPU, where it has no antialiased resize either.
    """
    devices = [
        *tf.config.list_physical_devices(),
        SimpleNamespace(device_type="GPU", name="/physical_device:GPU:0"),
    ]
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda device_type=None: [
            device for device in devices if device_type in (None, device.device_type)
        ],
    )


def test_models_run_without_xla_on_a_gpu(encoder, seeing_a_gpu, tmp_path):
    inference = inference_model(encoder, SIZE, MEAN, STD)
    expected = inference(photos(40, 57)).numpy()
    np.testing.assert_allclose(
        inference.predict_on_batch(photos(40, 57)), expected, rtol=1e-5, atol=1e-6
    )
    tuned = keras.Sequential([inference, keras.layers.Dense(2)])
    tuned.predict_on_batch(photos(40, 57))
    plain = inference_model(plain_encoder(encoder), SIZE, MEAN, STD)
    write_saved_model(plain, tmp_path)
    plain.save(tmp_path / "encoder.keras")
    for file in (tmp_path / "1", tmp_path / "encoder.keras"):
        np.testing.assert_allclose(
            load_encoder_file(file).predict_on_batch(photos(40, 57)), expected, rtol=1e-4, atol=1e-5
        )


def test_xla_fails_on_the_antialiased_resize(encoder, seeing_a_gpu):
    inference = inference_model(encoder, SIZE, MEAN, STD)
    inference.get_layer("centre").supports_jit = True
    with pytest.raises(tf.errors.InvalidArgumentError, match="ScaleAndTranslate"):
        inference.predict_on_batch(photos(40, 57))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 57), (61, 20), (9, 12), (16, 33)])
def test_any_image_size_equals_reference_preprocessing(encoder, height, width):
    outputs = inference_model(encoder, SIZE, MEAN, STD).predict_on_batch(photos(height, width))
    squares = np.stack([reference.centre_resized(image, SIZE) for image in photos(height, width)])
    normalised = (squares / 255.0 - MEAN) / STD
    assert outputs.dtype == np.float32
    assert outputs.shape == (3, 32)
    np.testing.assert_allclose(
        outputs, encoder(normalised.astype(np.float32), training=False), rtol=1e-3, atol=1e-4
    )
    assert outputs.std() > 0.1


def test_inference_mode_and_shared_weights(encoder):
    model = inference_model(encoder, SIZE, MEAN, STD)
    before = [variable.numpy() for variable in encoder.variables]
    together = model(photos(16, 16)).numpy()
    np.testing.assert_allclose(
        together[1:2], model(photos(16, 16)[1:2]).numpy(), rtol=1e-5, atol=1e-6
    )
    for variable, value in zip(encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    variable = encoder.trainable_variables[0]
    variable.assign(2.0 * before[0])
    changed = model(photos(16, 16)).numpy()
    variable.assign(before[0])
    assert np.abs(changed - together).max() > 1e-3


def subclassed(image_size: int) -> keras.Model:
    class Pooled(keras.Model):
        def __init__(self):
            super().__init__()
            self.features = keras.layers.Conv2D(8, 3, strides=2, padding="same")

        def call(self, images, training=None):
            return keras.ops.mean(self.features(images), axis=(1, 2))

    model = Pooled()
    model(np.zeros((1, image_size, image_size, 3), np.float32))
    return model


@pytest.mark.parametrize(
    "build",
    [
        *(
            partial(build_encoder, "convnet", width=0.5, normalization=normalization)
            for normalization in NORMALIZATIONS
        ),
        partial(build_encoder, "resnet18", width=0.25),
        lambda image_size: keras.Sequential(
            [
                keras.Input((image_size, image_size, 3)),
                keras.layers.Conv2D(8, 3),
                keras.layers.GlobalMaxPooling2D(),
            ]
        ),
        subclassed,
    ],
    ids=[*NORMALIZATIONS, "resnet18", "sequential", "subclassed"],
)
def test_another_size_equals_the_network_built_for_it(build):
    encoder, larger = build(image_size=SIZE), build(image_size=24)
    larger.set_weights(encoder.get_weights())
    model = inference_model(encoder, 24, MEAN, STD)
    expected = inference_model(larger, 24, MEAN, STD).predict_on_batch(photos(40, 30))
    np.testing.assert_allclose(
        model.predict_on_batch(photos(40, 30)), expected, rtol=1e-4, atol=1e-5
    )
    assert {id(weight) for weight in model.weights} == {id(weight) for weight in encoder.weights}
    assert split_inference_model(model)[2].input_shape == (None, 24, 24, 3)


def test_network_of_one_size_refuses_another():
    encoder = keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(4)], name="flat"
    )
    with pytest.raises(ValueError, match=r'^expected 16, the only size that "flat" takes; recei'):
        inference_model(encoder, 24, MEAN, STD)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_plain_encoder_has_keras_layers_and_equal_outputs(name, precision):
    keras.mixed_precision.set_global_policy(precision)
    try:
        encoder = with_random_statistics(build_encoder(name, SIZE, width=0.25))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    plain = plain_encoder(encoder)
    assert any(isinstance(layer, BatchNorm) for layer in encoder.layers)
    assert not any(isinstance(layer, BatchNorm) for layer in plain.layers)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    images = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    assert np.float32(encoder(images, training=False)).std() > 0.1
    outputs, expected = (
        plain(images, training=False).numpy(),
        np.float32(encoder(images, training=False)),
    )
    tolerance = 1e-5 if precision == "float32" else 0.05
    np.testing.assert_allclose(
        outputs, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )
    before = plain.get_weights()
    for variable in encoder.variables:
        variable.assign(variable + 1.0)
    for one, other in zip(plain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_plain_encoder_of_each_normalisation_loads_in_keras(normalization, precision, tmp_path):
    keras.mixed_precision.set_global_policy(precision)
    try:
        encoder = with_random_statistics(
            build_encoder("resnet18", SIZE, 0.25, normalization=normalization)
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    random_weights(
        *(layer for layer in encoder.layers if isinstance(layer, BatchNorm | GroupNorm | DataInit))
    )
    images = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    expected = np.float32(encoder(images, training=False))
    path = tmp_path / "plain.keras"
    plain_encoder(encoder).save(path)
    with zipfile.ZipFile(path) as archive:
        assert "byol_tf" not in archive.read("config.json").decode()
    loaded = keras.models.load_model(path)
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    assert relative_error(loaded(images), expected) < (1e-5 if precision == "float32" else 0.1)
    assert expected.std() > 0.01


def test_plain_encoder_keeps_bias_and_activation():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(
        WSConv2D(4, 3, strides=2, activation="relu", epsilon=1e-2)(inputs)
    )
    encoder = keras.Model(inputs, WSDense(5, name="last")(x))
    random_weights(encoder)
    images = np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)
    plain = plain_encoder(encoder)
    assert [type(layer) for layer in plain.layers if layer.weights] == [
        keras.layers.Conv2D,
        keras.layers.Dense,
    ]
    assert relative_error(plain(images), encoder(images)) < 1e-5


class Subclassed(keras.Model):
    """An encoder whose layers Keras knows from its `call` alone."""

    def __init__(self, features=6, **kwargs):
        super().__init__(**kwargs)
        self.features = features
        self.conv = WSConv2D(features, 3, strides=2)
        self.norm = BatchNorm()

    def call(self, images, training=None):
        return keras.ops.mean(self.norm(self.conv(images), training=training) * 2.0, axis=(1, 2))

    def get_config(self):
        return {"features": self.features}


def with_operators() -> keras.Model:
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.ops.relu(keras.layers.Conv2D(4, 3)(inputs * 2 - 1)[:, 1:, ..., :])
    return keras.Model(inputs, keras.ops.mean(x, axis=(1, 2)))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 3)), build_encoder("convnet", SIZE, 0.25)])
    inputs = keras.Input((SIZE, SIZE, 3))
    return keras.Model(inputs, keras.layers.Dense(5)(inner(inputs)))


def subclassed() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, SIZE, SIZE, 3), np.float32))
    return model


def with_nested_subclass() -> keras.Model:
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), Subclassed(), keras.layers.Dense(4)])


def with_adapted_normalization() -> keras.Model:
    layer = keras.layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(5.0, 3.0, (4, SIZE, SIZE, 3)))
    return keras.Sequential(
        [keras.Input((SIZE, SIZE, 3)), layer, keras.layers.GlobalAveragePooling2D()]
    )


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "build", [with_operators, nested, subclassed, with_nested_subclass, with_adapted_normalization]
)
def test_exported_encoder_of_any_form_has_keras_layers_and_loads(build, precision, tmp_path):
    keras.mixed_precision.set_global_policy(precision)
    try:
        encoder = build()
        if build is not with_adapted_normalization:
            random_weights(encoder)
        model = exported_form(inference_model(encoder, SIZE, MEAN, STD))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    expected = inference_model(encoder, SIZE, MEAN, STD)(photos(40, 57)).numpy()
    inner = [layer for layer in all_layers(model) if layer.weights]
    assert {type(layer).__module__.split(".")[0] for layer in inner} <= {"keras"}
    assert {layer.compute_dtype for layer in inner if not isinstance(layer, keras.Model)} <= {
        "float32"
    }
    model.save(tmp_path / "encoder.keras")
    loaded = load_encoder_file(tmp_path / "encoder.keras")
    tolerance = 1e-5 if precision == "float32" else 0.1
    assert relative_error(loaded(photos(40, 57)), expected) < tolerance
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([keras.layers.Rescaling(1 / 127.5, -1.0)], True),
        ([keras.layers.Rescaling(2.0, -1.0)], False),
        ([keras.layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)], True),
        ([keras.layers.Normalization(mean=[0.5] * 3, variance=[0.06] * 3)], False),
        ([keras.Sequential([keras.Input((None, None, 3)), keras.layers.Rescaling(1 / 255)])], True),
        ([keras.layers.Conv2D(3, 1)], False),
    ],
)
def test_float_model_takes_pixels_only_if_its_first_layer_scales_them(layers, expected):
    model = keras.Sequential([keras.Input((None, None, 3)), *layers])
    assert takes_pixels(model) == expected
    images = keras.Input((None, None, 3), dtype="uint8")
    assert takes_pixels(keras.Model(images, model(images)))


def test_outputs_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = inference_model(build_encoder("convnet", SIZE, width=0.25), SIZE, MEAN, STD)
        outputs = model.predict_on_batch(photos(20, 20))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()
