"""Tests of `batch_independent` against what the networks compute."""

import keras
import numpy as np
import pytest

from byol_tf.models.networks import NORMALIZATIONS, batch_independent, build_encoder, mlp_head


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("network", ["resnet18", "convnet", "head"])
def test_answer_agrees_with_outputs_of_an_image_alone(network, normalization):
    if network == "head":
        model, shape = (
            mlp_head(6, 32, 32, "projector", normalization=normalization, normalize_output=True),
            (8, 6),
        )
    else:
        model, shape = build_encoder(network, 16, 0.5, normalization=normalization), (8, 16, 16, 3)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    alone = np.allclose(model(x[:2], training=True), model(x, training=True)[:2], atol=1e-4)
    assert batch_independent(model) is alone is (normalization != "batch")


def functional(*layers) -> keras.Model:
    inputs = x = keras.Input((4, 4, 2))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


class MixingDense(keras.layers.Dense):
    """Mixes neighbouring images in its `call`."""

    def call(self, inputs):
        return super().call(keras.ops.roll(inputs, 1, axis=0))


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


def test_layers_of_nested_models_count():
    good, bad = functional(keras.layers.Dense(3)), functional(keras.layers.BatchNormalization())
    assert batch_independent(functional(good, keras.layers.ReLU()))
    assert not batch_independent(functional(bad, keras.layers.ReLU()))
    assert batch_independent(keras.Sequential([keras.Input((4, 4, 2)), good]))
    assert not batch_independent(keras.Sequential([keras.Input((4, 4, 2)), bad]))


@pytest.mark.parametrize(
    "layer",
    [
        MixingDense(3),
        keras.layers.Lambda(lambda x: x),
        lambda x: x - keras.ops.mean(x, axis=0, keepdims=True),
    ],
    ids=["subclass", "lambda", "operation"],
)
def test_unknown_layers_and_operations_are_not_trusted(layer):
    assert not batch_independent(functional(layer))


def test_subclassed_model_is_not_trusted():
    model = Subclassed()
    model(np.zeros((1, 2), np.float32))
    assert not batch_independent(model)
    assert not batch_independent(functional(model))


def test_frozen_batch_norm_is_not_trusted():
    frozen = functional(keras.layers.BatchNormalization(trainable=False))
    assert not batch_independent(frozen)
