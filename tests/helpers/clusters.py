"""Features of classes that overlap."""

import numpy as np


def gaussian_clusters(
    count: int, seed: int, classes: int = 5, noise: float = 2.0, width: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Samples (features float32 `[count, width]`, labels int `[count]`).

    The centres of the classes are the same for all seeds.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(0.0, 1.0, (classes, width))
    return (centres[labels] + rng.normal(0.0, noise, (count, width))).astype(np.float32), labels
