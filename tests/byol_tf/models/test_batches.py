"""Wrong batches: each gets one sentence that says what a batch is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from byol_tf.models.batches import micro_batches, refusal
from tests.helpers import tiny

FIRST, SECOND = (views[0] for views in tiny.views(1, 8))
one = tf.data.Dataset.from_tensors
EXPECTED = r"expected batches of 2 views of each image, \(view1, view2\), tensors \[N, H, W, 3\]; "


@pytest.mark.parametrize(
    ("batch", "received"),
    [
        (lambda: one(FIRST), r"a tensor \[8, 8, 8, 3\]"),
        (lambda: one(np.stack([FIRST, SECOND], 1)), r"a tensor \[8, 2, 8, 8, 3\]"),
        (lambda: one({"a": FIRST, "b": SECOND}), "a dict"),
        (lambda: [FIRST, SECOND], r"1: \(2: \(a tensor"),
        (lambda: one(((FIRST, SECOND), np.zeros(8))), r"2: \(2: \(a tensor .*, a tensor \[8\]\)"),
        (lambda: one((FIRST, np.zeros(8, np.float32))), r"2: \(a tensor .*, a tensor \[8\]\)"),
        (
            lambda: tf.data.Dataset.from_generator(
                lambda: iter([(FIRST, SECOND)]), output_types=(tf.float32, tf.float32)
            ),
            r"2: \(a tensor of unknown shape, a tensor of unknown shape\)",
        ),
        (lambda: one((FIRST, SECOND, FIRST)), r"3: \(a tensor"),
        (lambda: one((FIRST[..., 0], SECOND[..., 0])), r"2: \(a tensor \[8, 8, 8\], a tensor"),
    ],
)
def test_wrong_batch_is_an_error(batch, received):
    model = tiny.model(tau=0.9)
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match=f"{EXPECTED}received {received}"):
        model.fit(batch(), verbose=0)


@pytest.mark.parametrize("eagerly", [False, True])
def test_views_of_other_numbers_of_images_are_an_error(eagerly):
    """A loss would take one image's view for that of all."""
    model = tiny.model(tau=0.9)
    model.compile("sgd", jit_compile=False, run_eagerly=eagerly)
    unknown = tf.TensorSpec((None, 8, 8, 3))
    batches = tf.data.Dataset.from_generator(
        lambda: iter([(FIRST, SECOND[:1])]), output_signature=(unknown, unknown)
    )
    with pytest.raises(ValueError, match=r"expected as many images in each view, .* received .*8"):
        model.fit(batches, verbose=0)


def test_views_of_two_dtypes_are_an_error():
    model = tiny.model(tau=0.9)
    model.compile("sgd", jit_compile=False)
    with pytest.raises(ValueError, match="expected views of one dtype; received float32, float16"):
        model.fit(one((FIRST, tf.cast(SECOND, tf.float16))), verbose=0)


@pytest.mark.parametrize("steps", [1, 2])
def test_partial_batch_that_micro_batches_do_not_divide_is_an_error(steps):
    """Its size is known in the step alone."""
    model = tiny.model(tau=0.9, gradient_accumulation_steps=4)
    model.compile("sgd", jit_compile=False, steps_per_execution=steps)
    batches = tf.data.Dataset.from_tensor_slices((FIRST, SECOND)).repeat(2).take(14).batch(8)
    with pytest.raises(
        ValueError,
        match=r"gradient_accumulation_steps: expected a divisor of .* drop_remainder=True\); "
        "received 4, and images: 6",
    ):
        model.fit(batches, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 1
    model.fit(batches.take(1).repeat(2), verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 3


def test_batch_of_one_image_leaves_the_measures_finite():
    model = tiny.model(tau=0.9)
    model.compile(keras.optimizers.SGD(0.0), jit_compile=False)
    batches = tf.data.Dataset.from_tensor_slices((FIRST, SECOND)).batch(7)
    assert all(
        np.isfinite(values).all() for values in model.fit(batches, verbose=0).history.values()
    )


def test_other_errors_of_a_step_are_no_refusals():
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        tf.reshape(tf.zeros(5), tf.constant([2, 3]))
    assert refusal(raised.value) is None
    assert micro_batches([tf.zeros((6, 2))], 3)[0].shape == (3, 2, 2)
