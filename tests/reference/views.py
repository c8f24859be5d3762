"""NumPy reference of views, from the papers' definitions; pixels in [0, 1], `[H, W, channels]`.

BYOL, appendix B; STL-10 paper, section 3.4.
"""

import colorsys

import numpy as np

# An image's 48 numbers: which of them each operation takes.
CROP, FLIP, JITTER, COLOR, ORDER = slice(0, 4), 4, 5, slice(6, 10), slice(10, 14)
GRAY, BLUR, SIGMA, SOLARIZE = 14, 15, 16, 17
PERSPECTIVE, CORNERS, PATCHES, RECTANGLES = 18, slice(19, 27), 27, slice(28, 40)
CHANNELS = slice(40, 48)


def clipped(image):
    return np.clip(image, 0.0, 1.0)


def crop_box(numbers, height, width, area_range, aspect_range):
    """Returns (top, left, height, width) in pixels of a crop box, cut to the image.

    Area is uniform, aspect log-uniform.
    """
    area = (area_range[0] + numbers[0] * (area_range[1] - area_range[0])) * height * width
    low, high = np.log(aspect_range[0]), np.log(aspect_range[1])
    aspect = np.exp(low + numbers[1] * (high - low))
    box_height, box_width = min(np.sqrt(area / aspect), height), min(np.sqrt(area * aspect), width)
    return (
        numbers[2] * (height - box_height),
        numbers[3] * (width - box_width),
        box_height,
        box_width,
    )


def crop_bilinear(image, box, size):
    """Samples the box at the centres of size x size cells; edge pixels are repeated."""
    top, left, box_height, box_width = box
    steps = (np.arange(size) + 0.5) / size
    rows, columns = top + steps * box_height - 0.5, left + steps * box_width - 0.5
    return _along(_along(np.asarray(image, np.float64), rows, 0), columns, 1)


def _along(image, where, axis):
    last = image.shape[axis] - 1
    where = np.clip(where, 0.0, last)
    below = np.minimum(np.floor(where).astype(int), max(last - 1, 0))
    fraction = (where - below).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    first, second = np.take(image, below, axis), np.take(image, np.minimum(below + 1, last), axis)
    return first * (1.0 - fraction) + second * fraction


def brightness(image, offset):
    return clipped(image + offset)


def contrast(image, factor, center="mean"):
    mean = image.mean(axis=(0, 1)) if center == "mean" else 0.0
    return clipped(mean + factor * (image - mean))


def _each_pixel(image, change):
    pixels = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in image.reshape(-1, 3)
    ]
    return clipped(np.array(pixels).reshape(image.shape))


def saturation(image, factor):
    return _each_pixel(image, lambda h, s, v: (h, min(max(s * factor, 0.0), 1.0), v))


def hue(image, shift):
    return _each_pixel(image, lambda h, s, v: ((h + shift) % 1.0, s, v))


def jitter(image, color, order, strengths, contrast_center="mean"):
    """Applies the four operations in ascending order of `order`.

    `color` holds their amounts in [0, 1), `strengths` their ranges.
    """
    b, c, s, h = (2.0 * np.asarray(color, np.float64) - 1.0) * strengths
    operations = (
        lambda x: brightness(x, b),
        lambda x: contrast(x, 1.0 + c, contrast_center),
        lambda x: saturation(x, 1.0 + s),
        lambda x: hue(x, h),
    )
    for index in np.argsort(order):
        if strengths[index]:  # saturation and hue are for RGB
            image = operations[index](image)
    return image


def grayscale(image):
    return np.repeat((image @ np.array([0.2989, 0.587, 0.114]))[..., None], 3, axis=-1)


def blur(image, sigma, radius):
    """Applies a Gaussian of 2 radius + 1 pixels in both directions at once; zeros outside."""
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2.0 * sigma**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)))
    height, width = image.shape[:2]
    return sum(
        kernel[y, x] * padded[y : y + height, x : x + width]
        for y in range(2 * radius + 1)
        for x in range(2 * radius + 1)
    )


def solarize(image, threshold):
    return np.where(image < threshold, image, 1.0 - image)


def perspective(image, numbers, distortion):
    """Moves the corners, clockwise from the top left, inwards by `numbers` x distortion x side / 2.

    `numbers` are x and y of each, `[8]`.
    """
    size = len(image)
    start = np.array([[0, 0], [size - 1, 0], [size - 1, size - 1], [0, size - 1]], np.float64)
    end = (
        start
        + np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        * np.reshape(numbers, (4, 2))
        * distortion
        * size
        / 2.0
    )
    equations, values = [], []
    for (x, y), (u, v) in zip(
        start, end, strict=True
    ):  # u = (a x + b y + c) / (g x + h y + 1), v = (d x + e y + f) / (...)
        equations += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    forward = np.append(np.linalg.solve(np.array(equations), np.array(values)), 1.0).reshape(3, 3)
    backward = np.linalg.inv(forward)
    moved = np.zeros_like(image)
    for v in range(size):
        for u in range(size):
            x, y, w = backward @ (u, v, 1.0)
            moved[v, u] = _bilinear_or_black(image, x / w, y / w)
    return clipped(moved)


def _bilinear_or_black(image, x, y):
    size, total = len(image), np.zeros(image.shape[2])
    for row, row_fraction in ((int(np.floor(y)), 1.0 - y % 1.0), (int(np.floor(y)) + 1, y % 1.0)):
        for column, column_fraction in (
            (int(np.floor(x)), 1.0 - x % 1.0),
            (int(np.floor(x)) + 1, x % 1.0),
        ):
            if 0 <= row < size and 0 <= column < size:
                total += row_fraction * column_fraction * image[row, column]
    return total


def rectangles(numbers, side_range):
    """Returns three boxes (top, left, bottom, right) as fractions of the view.

    `numbers` are height, width, y and x of each, `[12]`.
    """
    boxes = []
    for height, width, down, across in np.reshape(numbers, (3, 4)):
        height, width = (
            side_range[0] + side * (side_range[1] - side_range[0]) for side in (height, width)
        )
        top, left = down * (1.0 - height), across * (1.0 - width)
        boxes.append((top, left, top + height, left + width))
    return boxes


def drop_patches(image, boxes):
    """Makes every pixel black whose centre lies in a box."""
    size, image = len(image), image.copy()
    for row in range(size):
        for column in range(size):
            y, x = (row + 0.5) / size, (column + 0.5) / size
            if any(top <= y < bottom and left <= x < right for top, left, bottom, right in boxes):
                image[row, column] = 0.0
    return image


def drop_channels(image, numbers, probability):
    """Makes channels black: the first eight by a number each, the others by its further digits."""
    uniforms = np.concatenate([numbers, numbers * 4096.0 % 1.0])[: image.shape[2]]
    return np.where(uniforms < probability, 0.0, image)


def augment(image, numbers, policy):
    """Applies everything after crop and flip, in the papers' order."""
    if numbers[PERSPECTIVE] < policy.perspective_probability:
        image = perspective(image, numbers[CORNERS], policy.perspective_distortion)
    if numbers[JITTER] < policy.jitter_probability:
        strengths = (policy.brightness, policy.contrast, policy.saturation, policy.hue)
        image = jitter(image, numbers[COLOR], numbers[ORDER], strengths, policy.contrast_center)
    if numbers[GRAY] < policy.grayscale_probability:
        image = grayscale(image)
    if numbers[BLUR] < policy.blur_probability:
        low, high = policy.blur_sigma
        radius = (policy.blur_kernel_size or 2 * int(len(image) / 10 / 2) + 1) // 2
        image = blur(image, low + numbers[SIGMA] * (high - low), radius)
    if numbers[SOLARIZE] < policy.solarize_probability:
        image = solarize(image, policy.solarize_threshold)
    if numbers[PATCHES] < policy.patch_drop_probability:
        image = drop_patches(image, rectangles(numbers[RECTANGLES], policy.patch_drop_side))
    return drop_channels(image, numbers[CHANNELS], policy.channel_drop_probability)
