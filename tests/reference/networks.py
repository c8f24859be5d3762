"""Networks by arithmetic; normalisations, a convolution and image resizing by formula. All in
float64."""

import numpy as np

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

PUBLISHED = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
"""Parameters of torchvision's ResNets, with their classifier of 1000 classes."""
PUBLISHED_WIDE_50 = 68_883_240
"""Those of its wide_resnet50_2."""


def resnet_parameters(depth, width=1.0, stem_kernel=7, inner_width=1):
    """Convolutions without bias and two numbers a channel for each normalisation (He et al. 2015,
    table 1); `inner_width` times as many channels inside a bottleneck."""

    def conv(inputs, outputs, kernel):
        return inputs * outputs * kernel * kernel + 2 * outputs

    bottleneck = depth >= 50
    channels = round(64 * width)
    total = conv(3, channels, stem_kernel)
    for group, count in enumerate(_BLOCKS[depth]):
        outputs = round((256 if bottleneck else 64) * 2**group * width)
        for _ in range(count):
            if bottleneck:
                inner = outputs // 4 * inner_width
                total += conv(channels, inner, 1) + conv(inner, inner, 3) + conv(inner, outputs, 1)
            else:
                total += conv(channels, outputs, 3) + conv(outputs, outputs, 3)
            if (
                channels != outputs
            ):  # the first block of a group; in the others the sum needs no projection
                total += conv(channels, outputs, 1)
            channels = outputs
    return total


def batch_norm(inputs, gamma, beta, epsilon):
    """(outputs, mean, biased variance) over all axes but the last (Ioffe and Szegedy 2015,
    algorithm 1)."""
    inputs = np.asarray(inputs, np.float64)
    axes = tuple(range(inputs.ndim - 1))
    mean, variance = inputs.mean(axis=axes), inputs.var(axis=axes)
    return gamma * (inputs - mean) / np.sqrt(variance + epsilon) + beta, mean, variance


def group_norm(inputs, gamma, beta, groups, epsilon):
    """`[N, ..., C]`: each image's groups of C / groups neighbouring channels by themselves (Wu and
    He 2018, section 3)."""
    inputs = np.asarray(inputs, np.float64)
    outputs = np.empty_like(inputs)
    size = inputs.shape[-1] // groups
    for image in range(len(inputs)):
        for group in range(groups):
            part = (image, ..., slice(group * size, (group + 1) * size))
            outputs[part] = (inputs[part] - inputs[part].mean()) / np.sqrt(
                inputs[part].var() + epsilon
            )
    return gamma * outputs + beta


def standardized(kernel, epsilon):
    """`[..., units]`: each unit's weights by themselves (paper without batch statistics, section
    2)."""
    kernel = np.asarray(kernel, np.float64)
    outputs = np.empty_like(kernel)
    for unit in range(kernel.shape[-1]):
        weights = kernel[..., unit]
        mean = weights.sum() / weights.size
        outputs[..., unit] = (weights - mean) / np.sqrt(
            epsilon + ((weights - mean) ** 2).sum() / weights.size
        )
    return outputs


def conv2d(images, kernel):
    """`[N, H, W, inputs]` by `[k, k, inputs, outputs]` with k odd, stride 1 and zeros around."""
    size = len(kernel)
    padded = np.pad(
        np.asarray(images, np.float64),
        [(0, 0), (size // 2, size // 2), (size // 2, size // 2), (0, 0)],
    )
    height, width = images.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j]
        for i in range(size)
        for j in range(size)
    )


def numeric_gradient(function, point, step=1e-5):
    """The gradient of a function from an array to a number, by central differences in float64."""
    point = np.array(point, np.float64)
    gradient = np.empty_like(point)
    for index in np.ndindex(point.shape):
        value = point[index]
        point[index] = value + step
        above = function(point)
        point[index] = value - step
        gradient[index] = (above - function(point)) / (2.0 * step)
        point[index] = value
    return gradient


def centre_resized(image, size):
    """The largest centred square, resized with a triangle filter that widens when it shrinks; `[H,
    W, 3]` in and `[size, size, 3]` out."""
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
