"""Random parameters: pinned values, and independence of the batch."""

import numpy as np
import pytest
import tensorflow as tf

from pipelines.views.random_params import sample_params

RECORDED = [
    [[0.13474929332733154, 0.41893470287323], [0.04363584518432617, 0.6067550182342529]],
    [[0.5675666332244873, 0.8787081241607666], [0.3952605724334717, 0.406663179397583]],
    [[0.21636009216308594, 0.2507598400115967], [0.10187971591949463, 0.22067499160766602]],
]
"""First two numbers of both views for seed 7, epoch 5 and three positions from 357,913,939 on.

The middle position is the first whose counter exceeds 32 bits.
"""


def params(
    first: int, count: int, seed: int = 3, epoch: int = 0, view_count: int = 2
) -> np.ndarray:
    positions = tf.range(first, first + count, dtype=tf.int64)
    return sample_params(seed, view_count, tf.constant(epoch, tf.int64), positions).numpy()


@pytest.mark.parametrize(("seed", "epoch"), [(3, 0), (2**31 - 1, 5), (0, 2**40)])
def test_first_positions_equal_stateless_uniform(seed, epoch):
    for view in range(2):
        folded = tf.random.experimental.stateless_fold_in(
            tf.constant((seed, view), tf.int64), tf.constant(epoch, tf.int64)
        )
        expected = tf.random.stateless_uniform((5, 48), folded, alg="philox").numpy()
        np.testing.assert_array_equal(params(0, 5, seed, epoch)[:, view], expected)


def test_recorded_values_of_a_seed_are_kept():
    """A change would give every experiment of a seed other views."""
    expected = np.float32(RECORDED)
    np.testing.assert_array_equal(params(2**32 // 12 - 2, 3, 7, 5)[:, :, :2], expected)


def test_parameters_are_independent_of_batch_and_of_other_views():
    together = params(0, 40)
    np.testing.assert_array_equal(params(7, 5), together[7:12])
    np.testing.assert_array_equal(params(39, 1), together[39:])
    np.testing.assert_array_equal(params(0, 40, view_count=4)[:, :2], together)
    far = 3_000_000_000
    np.testing.assert_array_equal(params(far, 4)[3], params(far + 3, 1)[0])
