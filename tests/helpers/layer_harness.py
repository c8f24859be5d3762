"""What the tests of all layers share."""

import keras
import numpy as np
import tensorflow as tf


def relative_error(actual, expected) -> float:
    """The largest difference, by the largest expected value."""
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


def random_weights(*layers: keras.layers.Layer) -> None:
    """Fills the trainable variables of built layers or models."""
    draw = np.random.default_rng(1)
    for variable in (variable for layer in layers for variable in layer.trainable_variables):
        variable.assign(draw.normal(0.3, 0.7, variable.shape))


def loss_weights(shape) -> np.ndarray:
    """What weights each output differently in the sum whose gradients are compared."""
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def gradients_as_tensors(layer: keras.layers.Layer, x) -> list[tf.Tensor]:
    """Outputs, then the gradients of sum(weights x outputs^2) by the input and by each trainable
    variable."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        total = tf.reduce_sum(
            loss_weights(x.shape[:1] + outputs.shape[1:]) * tf.square(tf.cast(outputs, tf.float32))
        )
    return [
        outputs,
        *tape.gradient(total, [x, *(variable.value for variable in layer.trainable_variables)]),
    ]


def gradients(layer: keras.layers.Layer, x, compiled: bool = False) -> list[np.ndarray]:
    """The same as arrays; `compiled` by XLA or eagerly."""
    run = tf.function(gradients_as_tensors, jit_compile=True) if compiled else gradients_as_tensors
    return [tensor.numpy() for tensor in run(layer, tf.convert_to_tensor(x))]


def check_serialises(layer: keras.layers.Layer, x: np.ndarray, folder) -> None:
    """Config and `.keras` file give the same layer with the same outputs."""
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    random_weights(model)
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    assert [variable.name for variable in loaded.variables] == [
        variable.name for variable in model.variables
    ]
    np.testing.assert_array_equal(loaded(x).numpy(), model(x).numpy())
