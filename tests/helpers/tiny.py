"""A BYOL model that is small enough for many tests, and pairs of views for it."""

import keras
import numpy as np
import tensorflow as tf

from byol_tf import BYOL
from byol_tf.models.networks import BatchNorm, mlp_head
from byol_tf.models.networks.blocks import normalize

SIZE, FEATURES, HIDDEN, PROJECTION = 8, 6, 10, 5


def encoder() -> keras.Model:
    """A convolution with BN: from `[N, 8, 8, 3]` to `[N, 6]`."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(FEATURES, 3, strides=2, padding="same", use_bias=False, name="conv")(
        inputs
    )
    x = keras.layers.ReLU()(BatchNorm(name="bn")(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="tiny")


def model(seed: int = 0, predictor: bool = True, **options) -> BYOL:
    """An uncompiled model with weights drawn from the seed."""
    keras.utils.set_random_seed(seed)
    return wrapped(encoder(), predictor, **options)


def wrapped(
    of: keras.Model, predictor: bool = True, of_class: type[BYOL] = BYOL, **options
) -> BYOL:
    """The same around another encoder, or of a subclass."""
    projector = mlp_head(
        of.output_shape[-1] if hasattr(of, "output_shape") else 7, HIDDEN, PROJECTION, "projector"
    )
    return of_class(
        of,
        projector,
        mlp_head(PROJECTION, HIDDEN, PROJECTION, "predictor") if predictor else None,
        **options,
    )


def normalized(normalization: str, **options) -> BYOL:
    """An uncompiled model of the library's layers with one normalisation everywhere."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(32, 3, strides=2, name="conv")(inputs)
    x = keras.layers.ReLU()(normalize(x, "{}", normalization))
    encoder = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x), name="tiny")
    projector = mlp_head(32, 128, 32, "projector", normalization=normalization)
    predictor = mlp_head(32, 128, 32, "predictor", normalization=normalization)
    return BYOL(encoder, projector, predictor, **options)


def views(batches: int, batch_size: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 `[batches, batch_size, 8, 8, 3]`; the second is the first with noise."""
    draw = np.random.default_rng(seed)
    first = draw.normal(size=(batches, batch_size, SIZE, SIZE, 3))
    return first.astype(np.float32), (first + 0.5 * draw.normal(size=first.shape)).astype(
        np.float32
    )


def dataset(batches: int, batch_size: int = 16, seed: int = 0) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(views(batches, batch_size, seed))


def fit(byol: BYOL, batches: int, callbacks=(), epochs: int = 1, **options) -> dict[str, list]:
    """Trains on the same few batches each epoch, unshuffled; returns the history."""
    return byol.fit(
        dataset(batches, **options),
        epochs=epochs,
        callbacks=list(callbacks),
        verbose=0,
        shuffle=False,
    ).history


def all_variables(byol: BYOL) -> list[keras.Variable]:
    """Those of online networks and target, moving statistics included."""
    networks = [*byol.networks.values(), byol.target_encoder, byol.target_projector]
    return [variable for network in networks for variable in network.variables]


def all_weights(byol: BYOL) -> list[np.ndarray]:
    """Copies of `all_variables`."""
    return [variable.numpy().copy() for variable in all_variables(byol)]


def weights(*parts: keras.Model) -> list[np.ndarray]:
    """Copies of all variables, moving statistics included."""
    return [variable.numpy().copy() for part in parts for variable in part.variables]
