"""Networks by arithmetic, batch normalisation and image resizing by formula."""

import numpy as np

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
"""Parameters of torchvision's ResNets, with their classifier of 1000 classes."""


def resnet_parameters(depth, width=1.0, stem_kernel=7):
    """Convolutions without bias and two numbers a channel for each normalisation (He et al. 2015, table 1)."""

    def conv(inputs, outputs, kernel):
        return inputs * outputs * kernel * kernel + 2 * outputs

    bottleneck = depth >= 50
    channels = round(64 * width)
    total = conv(3, channels, stem_kernel)
    for group, count in enumerate(_BLOCKS[depth]):
        outputs = round((256 if bottleneck else 64) * 2**group * width)
        for _ in range(count):
            if bottleneck:
                inner = outputs // 4
                total += conv(channels, inner, 1) + conv(inner, inner, 3) + conv(inner, outputs, 1)
            else:
                total += conv(channels, outputs, 3) + conv(outputs, outputs, 3)
            if channels != outputs:  # the first block of a group; in the others the sum needs no projection
                total += conv(channels, outputs, 1)
            channels = outputs
    return total


def batch_norm(inputs, gamma, beta, epsilon):
    """(outputs, mean, biased variance) over all axes but the last (Ioffe and Szegedy 2015, algorithm 1)."""
    inputs = np.asarray(inputs, np.float64)
    axes = tuple(range(inputs.ndim - 1))
    mean, variance = inputs.mean(axis=axes), inputs.var(axis=axes)
    return gamma * (inputs - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def centre_resized(image, size):
    """The largest centred square, resized with a triangle filter that widens when it shrinks; `[H, W, 3]` in and `[size, size, 3]` out."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.asarray(image[top : top + side, left : left + side], np.float64)
    weights = _triangle_weights(side, size)
    return np.einsum("ij,kl,jlc->ikc", weights, weights, square)


def _triangle_weights(side, size):
    scale = side / size
    centres = (np.arange(size) + 0.5) * scale
    distances = np.abs(np.arange(side) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(1.0 - distances, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
