"""The search goes on beyond an end that is the best, and stops."""

import math

import pytest

from byol_tf.evaluation.rate_search import best_rate, tried_rates


def peak_at(rate: float):
    """Accuracy falls with the distance from this rate, in factors."""
    return lambda tried: 1.0 - abs(math.log(tried / rate)) / 100


@pytest.mark.parametrize(
    ("peak", "more"),
    [
        (1e-2, []),  # within: nothing more
        (3e-2, [9e-2]),  # the largest was the best: one more, which is worse
        (0.1, [9e-2, 0.27]),
        (1e6, [9e-2, 0.27, 0.81]),  # three at most
        (3e-3, [1e-3]),
        (1e-9, [1e-3, 1e-3 / 3, 1e-3 / 9]),
    ],
)
def test_it_widens_where_an_end_is_the_best(peak, more):
    tried = tried_rates((3e-3, 1e-2, 3e-2), peak_at(peak), widen=True)
    assert list(tried)[:3] == [3e-3, 1e-2, 3e-2]
    assert list(tried)[3:] == pytest.approx(more)
    assert best_rate(tried) == min(tried, key=lambda rate: abs(math.log(rate / peak)))


def test_rates_that_were_asked_for_are_all_that_is_tried():
    assert list(tried_rates((1e-3, 1e-2), peak_at(1.0), widen=False)) == [1e-3, 1e-2]


def test_of_equals_the_first_is_taken():
    assert best_rate(tried_rates((1e-3, 1e-2), lambda rate: 0.5, widen=True)) == 1e-3
