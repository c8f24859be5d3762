"""Which learning rate: a few are tried, and others beyond them while an end is the best."""

from collections.abc import Callable, Sequence

_FACTOR, _TIMES = 3.0, 3


def tried_rates(rates: Sequence[float], accuracy: Callable[[float], float], widen: bool) -> dict[float, float]:
    """Rate -> accuracy on held-out images, of all that were tried, in that order. The first of the best is the one to take.

    Args:
        rates: that are tried in any case.
        accuracy: trains with a rate and judges.
        widen: whether a rate three times beyond an end of those tried is tried too while that end is the best, three times at most. A grid
            that is right for some images can be off by orders for others, and its end then looks like a choice.
    """
    tried = {rate: accuracy(rate) for rate in rates}
    for _ in range(_TIMES if widen else 0):
        best = best_rate(tried)
        if best == max(tried):
            beyond = best * _FACTOR
        elif best == min(tried):
            beyond = best / _FACTOR
        else:
            break
        tried[beyond] = accuracy(beyond)
    return tried


def best_rate(tried: dict[float, float]) -> float:
    """The first of those with the highest accuracy."""
    return max(tried, key=tried.get)
