"""Intervals of accuracies and of their differences."""

import numpy as np
import pytest

from byol_tf.runs.accuracy import Accuracy, chance, difference


def test_interval_is_wilsons():
    """Wilson 1927 by its formula."""
    correct, count, z = 8, 30, 1.959964
    centre = (correct + z**2 / 2) / (count + z**2)
    half = z / (count + z**2) * np.sqrt(correct * (count - correct) / count + z**2 / 4)
    assert Accuracy(8 / 30, 30).interval == pytest.approx((centre - half, centre + half), abs=1e-6)
    assert str(Accuracy(8 / 30, 30)) == "26.7% (14.2 to 44.4)"


def test_interval_of_a_difference_is_newcombes():
    """Newcombe 1998, "Interval estimation for the difference", table II, example a, method 10."""
    change = difference(Accuracy(48 / 80, 80), Accuracy(56 / 70, 70))
    assert (change.low, change.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("first", "second", "count", "sign"),
    [(7, 8, 30, 0), (7, 25, 30, 1), (25, 7, 30, -1), (440, 460, 1000, 0), (440, 500, 1000, 1)],
)
def test_accuracies_differ_only_beyond_their_interval(first, second, count, sign):
    assert difference(Accuracy(first / count, count), Accuracy(second / count, count)).sign == sign


@pytest.mark.parametrize("count", [None, 0, float("nan")])
def test_unknown_number_of_images_tells_nothing(count):
    assert str(Accuracy(0.25, count)) == "25.0%"
    assert difference(Accuracy(0.0, count), Accuracy(1.0, count)).sign == 0


def test_chance_is_the_most_frequent_class():
    assert chance(np.array([0, 1, 1, 2])) == 0.5
