"""What users get: any uint8 image in, the encoder's own float32 representation out."""

import keras
import numpy as np
import pytest

from byol_tf.networks import BatchNorm, build_encoder
from byol_tf.networks.inference import inference_model, plain_encoder
from tests.reference import networks as reference

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
SIZE = 16


def trained_like(encoder: keras.Model) -> keras.Model:
    """The encoder with moving statistics that differ from their start."""
    draw = np.random.default_rng(0)
    for variable in encoder.non_trainable_variables:
        values = draw.normal(0.0, 0.1, variable.shape) if variable.name == "moving_mean" else draw.uniform(0.2, 0.8, variable.shape)
        variable.assign(values)
    return encoder


@pytest.fixture(scope="module")
def encoder() -> keras.Model:
    return trained_like(build_encoder("convnet", SIZE, width=0.25))


def photos(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 57), (61, 20), (9, 12), (16, 33)])
def test_any_size_equals_preprocessing_by_hand(encoder, height, width):
    outputs = inference_model(encoder, SIZE, MEAN, STD).predict_on_batch(photos(height, width))
    squares = np.stack([reference.centre_resized(image, SIZE) for image in photos(height, width)])
    normalised = (squares / 255.0 - MEAN) / STD
    assert outputs.dtype == np.float32
    assert outputs.shape == (3, 32)
    np.testing.assert_allclose(outputs, encoder(normalised.astype(np.float32), training=False), rtol=1e-3, atol=1e-4)
    assert outputs.std() > 0.1


def test_it_is_in_inference_mode_and_shares_the_encoder(encoder):
    model = inference_model(encoder, SIZE, MEAN, STD)
    before = [variable.numpy() for variable in encoder.variables]
    together = model(photos(16, 16)).numpy()
    np.testing.assert_allclose(together[1:2], model(photos(16, 16)[1:2]).numpy(), rtol=1e-5, atol=1e-6)
    for variable, value in zip(encoder.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    variable = encoder.trainable_variables[0]
    variable.assign(2.0 * before[0])
    changed = model(photos(16, 16)).numpy()
    variable.assign(before[0])
    assert np.abs(changed - together).max() > 1e-3


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_plain_encoder_has_only_keras_own_layers_and_the_same_outputs(name, precision):
    keras.mixed_precision.set_global_policy(precision)
    try:
        encoder = trained_like(build_encoder(name, SIZE, width=0.25))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    plain = plain_encoder(encoder)
    assert any(isinstance(layer, BatchNorm) for layer in encoder.layers)
    assert not any(isinstance(layer, BatchNorm) for layer in plain.layers)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    assert {layer.compute_dtype for layer in plain.layers} == {"float32"}
    images = np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32)
    assert np.float32(encoder(images, training=False)).std() > 0.1
    outputs, expected = plain(images, training=False).numpy(), np.float32(encoder(images, training=False))
    tolerance = 1e-5 if precision == "float32" else 0.05
    np.testing.assert_allclose(outputs, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())
    before = plain.get_weights()
    for variable in encoder.variables:
        variable.assign(variable + 1.0)
    for one, other in zip(plain.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_outputs_are_float32_under_mixed_precision():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = inference_model(build_encoder("convnet", SIZE, width=0.25), SIZE, MEAN, STD)
        outputs = model.predict_on_batch(photos(20, 20))
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert outputs.dtype == np.float32
    assert np.isfinite(outputs).all()
