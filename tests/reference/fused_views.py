"""NumPy reference of linear views: antialiased resampling, colour without clipping in between.

Pixels are around [0, 1].
"""

import numpy as np

from tests.reference import views


def hat(x):
    return np.maximum(0.0, 1.0 - np.abs(x))


def keys(x):
    """Returns the cubic convolution kernel with a = -0.5.

    Keys, Cubic Convolution Interpolation for Digital Image Processing, 1981, equation 15.
    """
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1.0, -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


KERNELS = {"bilinear": hat, "bicubic": keys}


def crop(image, box, size, kernel):
    """Samples the box at the centres of size x size cells; the kernel spans at least a step."""
    top, left, height, width = box
    return _along(
        _along(np.asarray(image, np.float64), top, height, size, kernel, 0),
        left,
        width,
        size,
        kernel,
        1,
    )


def _along(image, start, extent, size, kernel, axis):
    step, lines = extent / size, []
    pixels = np.moveaxis(image, axis, 0)
    for cell in range(size):
        weights = kernel(
            (np.arange(len(pixels)) + 0.5 - start - (cell + 0.5) * step) / max(step, 1.0)
        )
        lines.append(np.tensordot(weights / weights.sum(), pixels, 1))
    return np.moveaxis(np.array(lines), 0, axis)


def contrast(image, factor, center="mean"):
    mean = image.mean(axis=(0, 1)) if center == "mean" else 0.0
    return mean + factor * (image - mean)


def saturation(image, factor):
    mean = image.mean(axis=-1, keepdims=True)
    return mean + factor * (image - mean)


def hue(image, shift):
    """Rotates RGB space about (1, 1, 1), by Rodrigues' formula.

    Red goes to green in a third of the circle, as in HSV.
    """
    axis, angle = np.ones(3) / np.sqrt(3.0), 2.0 * np.pi * shift
    along = (image @ axis)[..., None] * axis
    return (
        image * np.cos(angle)
        + np.cross(axis, image) * np.sin(angle)
        + along * (1.0 - np.cos(angle))
    )


def linear_view(image, numbers, policy, size, kernel):
    """Returns a view in the papers' order of operations, clipped at the end only."""
    box = views.crop_box(
        numbers[views.CROP], *image.shape[:2], policy.crop_area, policy.crop_aspect
    )
    image = crop(image, box, size, kernel)
    image = image[:, ::-1] if numbers[views.FLIP] < policy.flip_probability else image
    if numbers[views.PERSPECTIVE] < policy.perspective_probability:
        image = views.perspective(image, numbers[views.CORNERS], policy.perspective_distortion)
    if numbers[views.JITTER] < policy.jitter_probability:
        b, c, s, h = (2.0 * numbers[views.COLOR] - 1.0) * (
            policy.brightness,
            policy.contrast,
            policy.saturation,
            policy.hue,
        )
        operations = (
            lambda x: x + b,
            lambda x: contrast(x, 1.0 + c, policy.contrast_center),
            lambda x: saturation(x, 1.0 + s),
            lambda x: hue(x, h),
        )
        strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
        for index in np.argsort(numbers[views.ORDER]):
            image = operations[index](image) if strengths[index] else image
    image = views.grayscale(image) if numbers[views.GRAY] < policy.grayscale_probability else image
    if numbers[views.BLUR] < policy.blur_probability:
        low, high = policy.blur_sigma
        radius = (policy.blur_kernel_size or 2 * int(size / 10 / 2) + 1) // 2
        image = views.blur(image, low + numbers[views.SIGMA] * (high - low), radius)
    image = views.clipped(image)
    if numbers[views.SOLARIZE] < policy.solarize_probability:
        image = views.solarize(image, policy.solarize_threshold)
    if numbers[views.PATCHES] < policy.patch_drop_probability:
        boxes = views.rectangles(numbers[views.RECTANGLES], policy.patch_drop_side)
        image = views.drop_patches(image, boxes)
    return views.drop_channels(image, numbers[views.CHANNELS], policy.channel_drop_probability)
