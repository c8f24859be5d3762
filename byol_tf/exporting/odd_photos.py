"""Photos of odd sizes that are always at hand."""

import numpy as np

_SIZES = ((427, 640), (427, 333), (211, 640), (97, 61), (31, 47), (17, 113))
"""Height and width in pixels: wide, upright, nearly square, smaller than an encoder's input."""


def odd_photos() -> list[np.ndarray]:
    """Twelve uint8 `[H, W, 3]`: cuts of the two photographs that scikit-learn comes with."""
    from sklearn.datasets import load_sample_images

    cuts = []
    for photo in load_sample_images().images:
        for height, width in _SIZES:
            top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 3
            cuts.append(photo[top : top + height, left : left + width])
    return cuts
