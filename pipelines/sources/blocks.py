"""Images that lie side by side on a server, so that one request reads many of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

MOST_OPEN = 64
"""Largest number of blocks whose images are mixed: as many classes are in a batch of images that
are sorted by class."""
BLOCK_BYTES = 2**22
"""Size of a block where a format has none of its own. A server sends so much in the time of a few
round trips, and `MOST_OPEN` of them fit into memory."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of images, which are shuffled in place of the images where random reads are dear.

    Attributes:
        numbers: int64 `[n]`, the block of each image. Neighbours with the same number are one
            block, also in a subset.
        open: number of blocks whose images are mixed, a power of two up to `MOST_OPEN`; so many
            are in memory at once.
    """

    numbers: np.ndarray
    open: int = MOST_OPEN

    def of(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns the blocks of a subset of the images, in that order."""
        return replace(self, numbers=self.numbers[np.asarray(indices, np.int64)])
