"""Which labelled images a protocol learns from, and which it holds out to choose by. Test labels
choose nothing."""

import numpy as np

from byol_tf.errors import ProtocolError
from pipelines.sources import balanced_indices

HELD_OUT = 0.2
"""Share of the training labels by which a rate or a strength is chosen (the BYOL paper holds out
10,009 of ImageNet's 1.28 million)."""


def labelled_fraction(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draws a fraction of the labelled images, as many of each class as there are images for.

    Args:
        labels: int `[n]`.
        fraction: of n, above 0 and at most 1.
        seed: of the draw.

    Returns:
        int64, ascending indices.

    Raises:
        ProtocolError: if a class would be left without an image.
    """
    count, classes = round(fraction * len(labels)), len(np.unique(labels))
    if count < classes:
        raise ProtocolError(
            f"--fraction: expected at least {np.ceil(1e4 * classes / len(labels)) / 1e4:g}, an "
            f"image of each of the {classes} classes; "
            f"received {fraction:g}, which is {count} of {len(labels):,} labelled images"
        )
    return balanced_indices(labels, count, seed)


def held_out(labels: np.ndarray, seed: int, share: float = HELD_OUT, turn: int = 0) -> np.ndarray:
    """Draws a part of each class to choose by.

    Args:
        labels: int `[n]`.
        seed: of the draw.
        share: of each class, rounded; at least one image of a class that has two, and never all of
            a class.
        turn: which part of the draw, from 0; no image is in two of them. Later ones have fewer
            images of a class that has too few.

    Returns:
        bool `[n]`, True where an image is held out.

    Raises:
        ProtocolError: if no class has two images.
    """
    draw = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        held[draw.permutation(members)[turn * count : (turn + 1) * count]] = True
    if turn == 0 and not held.any():
        raise ProtocolError(
            "expected a class with two labelled images or more, so that one can be held out to "
            "choose by; each has one"
        )
    return held
