"""Random layers act in the online network only; batch statistics in the target too."""

import keras
import numpy as np
import pytest
from keras.src.applications.convnext import StochasticDepth

from byol_tf import BYOL, mlp_head
from tests.helpers import tiny


class SelfAttention(keras.layers.MultiHeadAttention):
    """Of a map `[N, h, w, d]`, with dropout of the attention."""

    def __init__(self, **kwargs):
        super().__init__(num_heads=1, key_dim=4, dropout=0.5, attention_axes=(1, 2), **kwargs)

    def build(self, shape):
        super().build(shape, shape)

    def call(self, x, training=None):
        return super().call(x, x, training=training)

    def compute_output_spec(self, x, training=None):
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self):
        return {"name": self.name}


RANDOM = {
    "dropout": lambda: keras.layers.Dropout(0.5),
    "spatial dropout": lambda: keras.layers.SpatialDropout2D(0.5),
    "noise": lambda: keras.layers.GaussianNoise(0.5),
    "stochastic depth of ConvNeXt": lambda: StochasticDepth(0.5),
    "attention": SelfAttention,
}


def encoder(layer: keras.Layer) -> keras.Model:
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(tiny.FEATURES, 3)(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(layer(x)))


@pytest.mark.parametrize("built_again", [False, True], ids=["copied", "built again"])
@pytest.mark.parametrize("name", RANDOM)
def test_target_is_not_random_and_uses_batch_statistics(name, built_again):
    keras.utils.set_random_seed(0)
    model = BYOL(
        encoder(RANDOM[name]()),
        mlp_head(tiny.FEATURES, 8, 4, "projector"),
        None,
        tau=0.9,
        target_encoder=encoder(RANDOM[name]()) if built_again else None,
    )
    images = np.random.default_rng(0).normal(2.0, 1.0, (16, tiny.SIZE, tiny.SIZE, 3))
    online, target = (
        [network(images, training=True).numpy() for _ in range(2)]
        for network in (model.encoder, model.target_encoder)
    )
    assert not np.allclose(*online)
    np.testing.assert_array_equal(*target)
    inference = model.target_encoder(images, training=False).numpy()
    assert not np.allclose(target[0], inference, atol=1e-2)
