"""Effective rank where it is known, and against another route to it."""

import numpy as np
import pytest

from byol_tf.evaluation.spectrum import effective_rank
from tests.reference import evaluation as reference


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_of_equally_used_directions_is_their_number(rank):
    corners = np.concatenate([np.eye(8)[:rank], -np.eye(8)[:rank]])  # centred, all singular values equal
    assert effective_rank(corners.astype(np.float32)) == pytest.approx(rank, rel=1e-6)
    assert effective_rank(corners * 1e-3 + 7.0) == pytest.approx(rank, rel=1e-6)


def test_of_one_point_is_1():
    assert effective_rank(np.full((5, 4), 3.7, np.float32)) == 1.0
    assert effective_rank(np.zeros((5, 4), np.float32)) == 1.0
    assert effective_rank(np.full((600, 64), 1e4, np.float32)) == 1.0


def test_of_a_line_is_1():
    line = np.outer(np.linspace(-3, 9, 20), np.arange(1, 6)).astype(np.float32)
    assert effective_rank(line) == pytest.approx(1.0, abs=1e-3)


def test_two_unequal_directions_by_hand():
    values = np.array([3.0, 1.0])
    points = np.concatenate([np.diag(values), -np.diag(values)])
    expected = np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert effective_rank(points) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(60, 10), (10, 60)])
def test_equals_the_route_over_eigenvalues(shape):
    vectors = (np.random.default_rng(0).normal(size=shape) * np.linspace(0.1, 3.0, shape[1]) + 5.0).astype(np.float32)
    received = effective_rank(vectors)
    assert received == pytest.approx(reference.effective_rank(vectors), rel=1e-5)
    assert 1.0 < received <= min(shape[0] - 1, shape[1])
