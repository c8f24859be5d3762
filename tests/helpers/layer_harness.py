"""Checks and helpers shared by the tests of all layers."""

import keras
import numpy as np
import tensorflow as tf


def relative_error(actual, expected) -> float:
    """Returns the largest difference, divided by the largest expected value."""
    expected = np.asarray(expected, np.float64)
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


def random_weights(*layers: keras.layers.Layer) -> None:
    """Fills the trainable variables of built layers or models with random numbers."""
    random = np.random.default_rng(1)
    for variable in (variable for layer in layers for variable in layer.trainable_variables):
        variable.assign(random.normal(0.3, 0.7, variable.shape))


def loss_weights(shape) -> np.ndarray:
    """Returns a weight for each output in the sum whose gradients are compared."""
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def gradients_as_tensors(layer: keras.layers.Layer, x) -> list[tf.Tensor]:
    """Returns the outputs and the gradients by the input and by each trainable variable.

    The gradients are those of sum(weights x outputs^2).
    """
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
    """Returns `gradients_as_tensors` as arrays; `compiled` by XLA or eagerly."""
    run = tf.function(gradients_as_tensors, jit_compile=True) if compiled else gradients_as_tensors
    return [tensor.numpy() for tensor in run(layer, tf.convert_to_tensor(x))]


def check_layer(
    layer_class: type[keras.layers.Layer], options: dict, x: np.ndarray, folder
) -> None:
    """Checks what every layer promises: shape, dtypes, gradients, XLA and serialization.

    Args:
        layer_class: the class.
        options: arguments of its constructor.
        x: float32 inputs.
        folder: a folder for the saved model.
    """
    layer = layer_class(**options)
    outputs = layer(x)
    random_weights(layer)
    assert outputs.shape == layer.compute_output_shape(x.shape)
    assert layer(keras.Input(x.shape[1:])).shape == (None, *outputs.shape[1:])
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *outputs.shape[1:])
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        low = layer_class(**options, dtype=precision)
        assert low(x).dtype == low.compute_dtype == precision.removeprefix("mixed_")
        assert {variable.dtype for variable in low.variables} == {"float32"}
    for eager, compiled in zip(gradients(layer, x), gradients(layer, x, True), strict=True):
        assert np.isfinite(eager).all()
        assert relative_error(compiled, eager) < 1e-5
    check_serializes(layer_class(**options), x, folder)


def check_serializes(layer: keras.layers.Layer, x: np.ndarray, folder) -> None:
    """Checks that a config and a `.keras` file give the same layer with the same outputs."""
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(copy) is type(layer)
    assert copy.get_config() == layer.get_config()
    model = keras.Sequential([keras.Input(x.shape[1:]), layer])
    random_weights(model)
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    assert [variable.name for variable in loaded.variables] == [
        variable.name for variable in model.variables
    ]
    for saved, variable in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(saved.numpy(), variable.numpy())
    np.testing.assert_array_equal(loaded(x).numpy(), model(x).numpy())
