"""Losses of layers (`add_loss`, regularisers) are part of the loss, once each, for each view."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf import BYOL, mlp_head
from byol_tf.models.networks import batch_independent
from tests.helpers import tiny

FIRST, SECOND = (tf.constant(views[0]) for views in tiny.views(1))


class AddsLoss(keras.layers.Layer):
    """Adds the mean square of its input."""

    def call(self, x):
        self.add_loss(keras.ops.mean(keras.ops.square(x)))
        return x


def model(regularizer=None, activity=None, added: bool = False, **options) -> BYOL:
    """Without batch statistics, so that micro-batches and passes of both views change nothing."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((tiny.SIZE, tiny.SIZE, 3))
    conv = keras.layers.Conv2D(
        tiny.FEATURES, 3, kernel_regularizer=regularizer, activity_regularizer=activity
    )
    x = keras.layers.GlobalAveragePooling2D()(conv(inputs))
    encoder = keras.Model(inputs, AddsLoss()(x) if added else x)
    heads = (
        mlp_head(width, 8, 5, name, normalization="layer")
        for width, name in ((tiny.FEATURES, "projector"), (5, "predictor"))
    )
    byol = BYOL(encoder, *heads, tau=0.9, **options)
    byol.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return byol


def steps(byol: BYOL) -> tuple[float, list[np.ndarray]]:
    """The loss of a step, and the changes that it makes to the encoder."""
    before = byol.encoder.get_weights()
    loss = float(byol.train_step((FIRST, SECOND))["loss"])
    return loss, [now - was for now, was in zip(byol.encoder.get_weights(), before, strict=True)]


def test_weight_regularizer_decays_the_kernel():
    plain, regularized = model(), model(keras.regularizers.L2(0.5))
    kernel = plain.encoder.get_weights()[0]
    (loss, change), (more, other) = steps(plain), steps(regularized)
    assert more - loss == pytest.approx(0.5 * np.sum(kernel**2), rel=1e-4)
    np.testing.assert_allclose(other[0] - change[0], -0.1 * kernel, atol=1e-6)


def test_losses_of_a_call_are_added_for_each_view():
    plain, regularized, added = model(), model(activity="l2"), model(added=True)
    conv = plain.encoder.layers[1]
    expected = [float(tf.reduce_sum(conv(x) ** 2)) * 0.01 / len(x) for x in (FIRST, SECOND)]
    assert steps(regularized)[0] - steps(plain)[0] == pytest.approx(sum(expected), rel=1e-4)
    plain = model()
    expected = [float(tf.reduce_mean(plain.encoder(x) ** 2)) for x in (FIRST, SECOND)]
    change = steps(plain)[1][0]
    loss, other = steps(added)
    assert loss - float(model().train_step((FIRST, SECOND))["loss"]) == pytest.approx(
        sum(expected), rel=1e-4
    )
    assert np.abs(other[0] - change).max() > 1e-4


def test_layer_with_activity_regularizer_gets_each_view_alone():
    """Its loss is divided by the images of a call."""
    assert batch_independent(model().encoder)
    assert not batch_independent(model(activity="l2").encoder)


@pytest.mark.parametrize("options", [{"regularizer": "l2"}, {"activity": "l2"}])
def test_micro_batches_give_the_losses_of_the_batch(options):
    (loss, changes), (other, others) = (
        steps(model(**options, gradient_accumulation_steps=count)) for count in (1, 4)
    )
    assert other == pytest.approx(loss, rel=1e-5)
    for one, two in zip(changes, others, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_shared_layer_counts_once():
    """In the regulariser and, as its weight is trained once, in the optimizer's step."""
    keras.utils.set_random_seed(0)
    shared = keras.layers.Dense(6, kernel_regularizer=keras.regularizers.L2(0.5))
    inputs, features = keras.Input((tiny.SIZE, tiny.SIZE, 3)), keras.Input((6,))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3)(inputs))
    encoder, projector = keras.Model(inputs, shared(x)), keras.Model(features, shared(features))
    byol = BYOL(encoder, projector, None, tau=0.5)
    byol.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    assert len(byol.trainable_variables) == len(set(map(id, byol.trainable_variables))) == 4
    with tf.GradientTape() as tape:
        views = (FIRST, SECOND)
        online = [projector(encoder(view, training=True), training=True) for view in views]
        target = [byol.target_projector(byol.target_encoder(view)) for view in views]
        loss = byol.objective(dict(enumerate(online)), dict(enumerate(target)))
        loss += 0.5 * tf.reduce_sum(tf.square(shared.kernel))
    kernel = shared.kernel.numpy()
    expected = kernel - 0.1 * tape.gradient(loss, shared.kernel.value).numpy()
    assert float(byol.train_step(views)["loss"]) == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(shared.kernel.numpy(), expected, atol=1e-6)
    for online, target in byol.target_pairs():
        np.testing.assert_allclose(target.numpy(), online.numpy(), atol=0.2)


def test_fixed_predictor_has_no_regularizer():
    byol = model(train_predictor=False)
    byol.predictor.get_layer("predictor_output").kernel.regularizer = keras.regularizers.L2(1e3)
    assert steps(byol)[0] < 10.0
