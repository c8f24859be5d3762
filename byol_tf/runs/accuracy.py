"""Accuracies with their 95% intervals, and whether two of them can be told apart.

The intervals are about the choice of test images: what another sample of as many images could have
given. They don't contain the variation over seeds.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Accuracy:
    """The fraction of test images that were classified correctly.

    Attributes:
        fraction: from 0 to 1.
        count: number of test images; None if it isn't known, and then there is no interval.
    """

    fraction: float
    count: int | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95% interval, as fractions."""
        if self.count is None or not self.count >= 1 or not 0.0 <= self.fraction <= 1.0:
            return None
        from scipy.stats import binomtest  # a second, which `--help` needn't take

        count = int(self.count)
        interval = binomtest(round(self.fraction * count), count).proportion_ci(method="wilson")
        return float(interval.low), float(interval.high)

    def __str__(self) -> str:
        """Formats as `59.9% (56.8 to 62.9)`."""
        if (interval := self.interval) is None:
            return f"{self.fraction:.1%}"
        low, high = interval
        return f"{self.fraction:.1%} ({100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Difference:
    """The difference of two accuracies on the same test images.

    Attributes:
        value: the second accuracy minus the first, as a fraction.
        low: lower end of its 95% interval; -1 if the number of test images isn't known.
        high: upper end of it; 1 if that isn't known.
    """

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """1 if the second accuracy is higher, -1 if it is lower, 0 if that can't be told."""
        return (self.low > 0.0) - (self.high < 0.0)


def difference(first: Accuracy, second: Accuracy) -> Difference:
    """Returns how much higher the second accuracy is, with an interval.

    The interval is Newcombe's ("Interval estimation for the difference between independent
    proportions", 1998, method 10), from both Wilson intervals. It takes the two for independent. On
    the same images two encoders are mostly right and wrong together, so the interval is rather too
    wide; McNemar's test would need each image's outcome, which histories don't have.
    """
    value = second.fraction - first.fraction
    if (one := first.interval) is None or (two := second.interval) is None:
        return Difference(value, -1.0, 1.0)
    return Difference(
        value,
        value - math.hypot(second.fraction - two[0], one[1] - first.fraction),
        value + math.hypot(two[1] - second.fraction, first.fraction - one[0]),
    )


def chance(labels: np.ndarray) -> float:
    """Returns the accuracy of always predicting the most frequent of the labels, int `[n]`."""
    return float(np.bincount(labels).max() / len(labels))
