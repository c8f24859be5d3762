"""How many threads fit a classifier."""

import numpy as np
from threadpoolctl import threadpool_limits

_SMALL = 2**22


def threads_for(features: np.ndarray) -> threadpool_limits:
    """A context in which linear algebra on small features, fewer than four million numbers, takes one thread.

    Threads wait for each other after each of a fit's hundreds of steps; on two cores that other programs want too, eleven fits of
    1,000 x 96 features took 7 s with them and 0.24 s without. Large ones keep as many as the process has.

    Args:
        features: float `[n, d]`.
    """
    return threadpool_limits(1 if features.size < _SMALL else None)
