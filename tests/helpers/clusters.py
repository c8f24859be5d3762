"""Features of classes that overlap: some are told apart, some not."""

import numpy as np


def heaps(
    count: int, seed: int, classes: int = 5, noise: float = 2.0, width: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 `[count, width]`, int `[count]`) around a direction for each class, the same for all
    seeds."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(0.0, 1.0, (classes, width))
    return (centres[labels] + draw.normal(0.0, noise, (count, width))).astype(np.float32), labels
