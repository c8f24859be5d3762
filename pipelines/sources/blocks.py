"""Images that lie side by side on a server, so that one request reads many of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

MAX_OPEN = 64
"""Largest number of blocks whose images are mixed: as many classes are in a batch of images that
are sorted by class."""
BLOCK_BYTES = 2**22
"""Size of a block where a format has none of its own. A server sends so much in the time of a few
round trips, and `MAX_OPEN` of them fit into memory."""


@dataclass(frozen=True)
class Blocks:
    """Groups of neighbouring images that one request reads.

    They are the unit of shuffling where random reads are expensive.

    Attributes:
        ids: int64 `[n]`, the block of each image. Neighbours with the same id are one block, also
            in a subset.
        max_open: number of blocks whose images are mixed, a power of two up to `MAX_OPEN`; so many
            are in memory at once.
        image_bytes: mean size of an image's file; 0 where that isn't known.
    """

    ids: np.ndarray
    max_open: int = MAX_OPEN
    image_bytes: int = 0

    def of(self, indices: Sequence[int] | np.ndarray) -> Self:
        """Returns the blocks of a subset of the images, in that order."""
        return replace(self, ids=self.ids[np.asarray(indices, np.int64)])
