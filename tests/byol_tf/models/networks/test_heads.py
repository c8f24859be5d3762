"""Tests of projector and predictor: the papers' structure, and outputs against NumPy."""

import keras
import numpy as np
import pytest

from byol_tf.models.networks import BatchNorm, mlp_head
from tests.helpers.layer_harness import random_weights, relative_error
from tests.reference import networks as reference


def test_layers_are_those_of_the_paper():
    head = mlp_head(512, 4096, 256, "projector")
    layers = head.layers[1:]
    assert [type(layer) for layer in layers] == [
        keras.layers.Dense,
        BatchNorm,
        keras.layers.ReLU,
        keras.layers.Dense,
    ]
    assert [layer.use_bias for layer in (layers[0], layers[3])] == [True, False]
    assert (head.input_shape, head.output_shape) == ((None, 512), (None, 256))
    expected = 512 * 4096 + 4096 + 2 * 4096 + 4096 * 256  # the last layer has neither bias nor BN
    assert sum(int(np.prod(variable.shape)) for variable in head.trainable_variables) == expected


def test_outputs_equal_numpy():
    head = mlp_head(6, 10, 4, "predictor")
    rng = np.random.default_rng(0)
    for variable in head.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    kernel, bias, gamma, beta, last = (variable.numpy() for variable in head.trainable_variables)
    x = rng.normal(size=(9, 6)).astype(np.float32)
    normalised, _, _ = reference.batch_norm(x @ kernel + bias, gamma, beta, 1e-5)
    np.testing.assert_allclose(
        head(x, training=True).numpy(), np.maximum(normalised, 0.0) @ last, rtol=1e-4, atol=1e-4
    )


def test_simsiams_projector_has_its_layers_and_equals_numpy():
    head = mlp_head(7, 12, 5, "projector", num_layers=3, normalize_output=True)
    hidden_layer = [keras.layers.Dense, BatchNorm, keras.layers.ReLU]
    assert [type(layer) for layer in head.layers[1:]] == [
        *hidden_layer,
        *hidden_layer,
        keras.layers.Dense,
        BatchNorm,
    ]
    assert [layer.use_bias for layer in head.layers if isinstance(layer, keras.layers.Dense)] == [
        True,
        True,
        False,
    ]
    rng = np.random.default_rng(0)
    for variable in head.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    weights = iter([variable.numpy() for variable in head.trainable_variables])
    images = x = rng.normal(size=(9, 7)).astype(np.float32)
    for _ in range(2):
        x = x @ next(weights) + next(weights)
        x = np.maximum(reference.batch_norm(x, next(weights), next(weights), 1e-5)[0], 0.0)
    x = reference.batch_norm(x @ next(weights), next(weights), next(weights), 1e-5)[0]
    assert next(weights, None) is None
    assert relative_error(head(images, training=True), x) < 1e-5
    assert x.min() < -0.1  # no ReLU after the last


def test_group_head_equals_numpy():
    head = mlp_head(7, 64, 5, "projector", normalization="group")
    random_weights(head)
    kernel, bias, gamma, beta, last = (variable.numpy() for variable in head.trainable_variables)
    x = np.random.default_rng(0).normal(size=(9, 7)).astype(np.float32)
    hidden = reference.group_norm(
        x @ reference.standardized(kernel, 1e-4) + bias, gamma, beta, 16, 1e-5
    )
    assert (
        relative_error(head(x), np.maximum(hidden, 0.0) @ reference.standardized(last, 1e-4)) < 1e-5
    )


def test_one_layer_is_linear_and_zero_an_error():
    head = mlp_head(7, 12, 5, "projector", num_layers=1)
    assert [type(layer) for layer in head.layers[1:]] == [keras.layers.Dense]
    assert not head.layers[1].use_bias
    with pytest.raises(ValueError, match="projector: expected at least one layer; received 0"):
        mlp_head(7, 12, 5, "projector", num_layers=0)


def test_initialisation_is_by_fan_in_and_independent():
    head = mlp_head(256, 400, 400, "projector")
    first, last = (
        head.get_layer("projector_hidden").kernel.numpy(),
        head.get_layer("projector_output").kernel.numpy(),
    )
    assert np.isclose(first.std(), 256**-0.5, rtol=0.02)
    assert np.isclose(last.std(), 400**-0.5, rtol=0.02)
    assert np.abs(np.corrcoef(first.ravel(), last[:256].ravel())[0, 1]) < 0.02
    assert not head.get_layer("projector_hidden").bias.numpy().any()


@pytest.mark.parametrize("normalization", ["batch", "layer", "group"])
@pytest.mark.parametrize(("scale", "center"), [(False, False), (True, False), (False, True)])
def test_output_normalization_without_scale_or_offset(normalization, scale, center):
    head = mlp_head(
        7,
        32,
        32,
        "projector",
        normalization=normalization,
        normalize_output=True,
        output_scale=scale,
        output_center=center,
    )
    names = [variable.name for variable in head.layers[-1].trainable_variables]
    assert names == ["gamma"] * scale + ["beta"] * center
    assert len(head.layers[2].trainable_variables) == 2  # the hidden layer keeps both


def test_last_layer_may_have_a_bias():
    head = mlp_head(6, 10, 4, "predictor", output_bias=True)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    before = head(x).numpy()
    bias = np.array([1.0, 2.0, 3.0, 4.0])
    head.get_layer("predictor_output").bias.assign(bias)
    np.testing.assert_allclose(head(x), before + bias, rtol=1e-5, atol=1e-5)
