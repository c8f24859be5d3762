"""Projector and predictor: the papers' structure."""

import keras
import numpy as np

from byol_tf.networks import BatchNorm, mlp_head
from tests.reference import networks as reference


def test_structure_is_linear_with_bias_bn_relu_linear_without():
    head = mlp_head(512, 4096, 256, "projector")
    layers = head.layers[1:]
    assert [type(layer) for layer in layers] == [keras.layers.Dense, BatchNorm, keras.layers.ReLU, keras.layers.Dense]
    assert [layer.use_bias for layer in (layers[0], layers[3])] == [True, False]
    assert (head.input_shape, head.output_shape) == ((None, 512), (None, 256))
    expected = 512 * 4096 + 4096 + 2 * 4096 + 4096 * 256  # the last layer has neither bias nor BN
    assert sum(int(np.prod(variable.shape)) for variable in head.trainable_variables) == expected


def test_outputs_equal_numpy():
    head = mlp_head(6, 10, 4, "predictor")
    draw = np.random.default_rng(0)
    for variable in head.trainable_variables:
        variable.assign(draw.normal(size=variable.shape))
    kernel, bias, gamma, beta, last = (variable.numpy() for variable in head.trainable_variables)
    x = draw.normal(size=(9, 6)).astype(np.float32)
    normalised, _, _ = reference.batch_norm(x @ kernel + bias, gamma, beta, 1e-5)
    np.testing.assert_allclose(head(x, training=True).numpy(), np.maximum(normalised, 0.0) @ last, rtol=1e-4, atol=1e-4)


def test_initialisation_is_by_fan_in_and_of_its_own_for_each_layer():
    head = mlp_head(256, 400, 400, "projector")
    first, last = head.get_layer("projector_hidden").kernel.numpy(), head.get_layer("projector_output").kernel.numpy()
    assert np.isclose(first.std(), 256**-0.5, rtol=0.02)
    assert np.isclose(last.std(), 400**-0.5, rtol=0.02)
    assert np.abs(np.corrcoef(first.ravel(), last[:256].ravel())[0, 1]) < 0.02
    assert not head.get_layer("projector_hidden").bias.numpy().any()
