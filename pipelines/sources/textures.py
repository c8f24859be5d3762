"""Grey textures generated from the seed: the embedded images, for a first run without a download.

BYOL learns what the two views of an image share and other images have not. So images differ in
their pattern, which is their label, and otherwise in what views destroy: position, scale,
brightness, contrast. None has a colour, a background or an object of its own: with those the same
network learned nothing of the labels.
"""

import hashlib
from collections.abc import Callable

import numpy as np

from pipelines.sources.base import RawSource, Request, SourceInfo
from pipelines.sources.images import ArrayImages


def stripes(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns parallel bars."""
    return _edge(_wave(u), sharp)


def checks(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns a chessboard."""
    first, second = _edge(_wave(u / 2), 2 * sharp), _edge(_wave(v / 2), 2 * sharp)
    return first + second - 2 * first * second


def dots(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns discs on a square grid."""
    return _edge(np.float32(0.3) - np.hypot(_from_centre(u), _from_centre(v)), sharp)


def rings(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns circles around one centre, where u = v = 0."""
    return _edge(_wave(np.hypot(u, v)), sharp)


def zigzag(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns bars that turn by a right angle in each period."""
    return _edge(_wave(v + np.abs(_from_centre(u / 2)) * 2), sharp)


def bricks(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns rows of bricks, each row shifted by half a brick."""
    shifted = u / 2 + np.floor(v) / 2
    joint = np.minimum(1 - 2 * np.abs(_from_centre(shifted)), 0.5 - np.abs(_from_centre(v)))
    return _edge(joint - np.float32(0.1), sharp)


def honeycomb(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns outlines of hexagons."""
    inside = np.zeros_like(u)
    for shift in (0.0, 0.5):  # hexagons stand in two interlaced grids
        x = np.abs(_from_centre(u + np.float32(shift)))
        y = np.abs(_from_centre(v / _ROOT3 + np.float32(shift))) * _ROOT3
        inside = np.maximum(inside, 0.5 - np.maximum(x, x / 2 + y * (_ROOT3 / 2)))
    return _edge(np.float32(0.09) - inside, sharp)


def crosses(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns plus signs on a square grid."""
    x, y = np.abs(_from_centre(u)), np.abs(_from_centre(v))
    return _edge(
        np.minimum(np.float32(0.11) - np.minimum(x, y), np.float32(0.4) - np.maximum(x, y)), sharp
    )


def triangles(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns triangles, every other one filled."""
    across = u - v / _ROOT3
    along = v * (2 / _ROOT3)
    across, along = across - np.floor(across), along - np.floor(along)
    return _edge(
        np.minimum(np.minimum(across, along), 1 - across - along) - np.float32(0.04), sharp
    )


def blobs(u: np.ndarray, v: np.ndarray, sharp: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Returns irregular spots: five waves across one another.

    `phases` are float32 `[n, 10]` in [0, 1].
    """
    total = np.zeros_like(u)
    for wave in range(5):
        angle = (np.float32(wave) + phases[:, wave, None, None]) * np.float32(np.pi / 5)
        total += np.cos(
            (u * np.cos(angle) + v * np.sin(angle) + phases[:, 5 + wave, None, None])
            * np.float32(2 * np.pi)
        )
    return _edge(total * np.float32(0.2), sharp)


def _from_centre(t: np.ndarray) -> np.ndarray:
    """Returns the distance from the middle of its period, -0.5 to 0.5."""
    return t - np.floor(t) - np.float32(0.5)


def _wave(t: np.ndarray) -> np.ndarray:
    """Returns a triangle wave of period 1, -0.25 to 0.25: the distance to the next edge of bars."""
    return np.abs(_from_centre(t)) - np.float32(0.25)


def _edge(distance: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Returns 1 where `distance`, in periods, is above 0; the transition is a pixel wide."""
    return np.clip(distance * sharp + np.float32(0.5), 0, 1)


SIDE = 48
COUNTS = {"unlabelled": 8_000, "train": 1_000, "test": 2_000}

# name -> function, pixels in a period: such that no pattern is finer than the others
PATTERNS: dict[str, tuple[Callable[..., np.ndarray], float]] = {
    "stripes": (stripes, 9.0),
    "checks": (checks, 8.0),
    "dots": (dots, 10.0),
    "rings": (rings, 9.0),
    "zigzag": (zigzag, 9.0),
    "bricks": (bricks, 9.0),
    "honeycomb": (honeycomb, 13.0),
    "crosses": (crosses, 12.0),
    "triangles": (triangles, 13.0),
    "blobs": (blobs, 11.0),
}

_BLOCK = 256  # images generated at once: their float32 planes stay in the cache
_RANDOM_NUMBERS = 32  # per image, besides its noise
# Standard deviation in grey levels. It is the same in all images: an image's views would share one
# of its own.
_NOISE = np.float32(8)


def describe(request: Request) -> SourceInfo:
    """Returns the counts of the textures."""
    counts = _counts(request)
    note = f"{sum(counts.values()):,} textures of {len(PATTERNS)} patterns, drawn from the seed"
    return SourceInfo(counts, len(PATTERNS), (SIDE, SIDE, 3), notes=(note,), in_memory=True)


def load(request: Request) -> RawSource:
    """Generates the images.

    Image i of a split is a function of (seed, split, i), so a smaller set is the beginning of a
    larger one.
    """
    counts = _counts(request)
    total, done, images = sum(counts.values()), 0, {}
    for split, count in counts.items():
        pixels = np.empty((count, SIDE, SIDE, 3), np.uint8)
        for start in range(0, count, _BLOCK):
            indices = np.arange(start, min(start + _BLOCK, count))
            pixels[indices] = draw(request.seed, split, indices)[..., None]
            done += len(indices)
            request.on_progress("drawing textures", done, total)
        images[split] = ArrayImages(
            pixels, None if split == "unlabelled" else np.arange(count) % len(PATTERNS)
        )
    identity = f"textures {request.seed} {counts}"
    return RawSource(
        images=images,
        class_names=tuple(PATTERNS),
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        notes=describe(request).notes,
    )


def draw(seed: int, split: str, indices: np.ndarray) -> np.ndarray:
    """Draws the images at `indices` of a split; image i shows pattern i modulo 10.

    Args:
        seed: of all images.
        split: "unlabelled", "train" or "test".
        indices: int `[n]`.

    Returns:
        uint8 `[n, 48, 48]`, grey.
    """
    split_seed = int.from_bytes(hashlib.sha256(f"{seed} {split}".encode()).digest()[:8], "little")
    start = _mixed(
        np.uint64(split_seed) + np.asarray(indices, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    )
    uniform = _numbers(start, _RANDOM_NUMBERS).astype(np.float64) * 2.0**-64
    random = uniform.astype(np.float32)[..., None, None]  # [n, 32, 1, 1], in [0, 1]
    x, y = _warped(random[:, :10])
    image = np.empty_like(x)
    labels = np.asarray(indices) % len(PATTERNS)
    for label, (pattern, period) in enumerate(PATTERNS.values()):
        rows = np.flatnonzero(labels == label)
        if len(rows):
            image[rows] = _pattern(pattern, period, x[rows], y[rows], random[rows, 10:])
    # Neither brightness nor contrast tells the patterns apart.
    image -= image.mean(axis=(1, 2), keepdims=True)
    image /= image.std(axis=(1, 2), keepdims=True) + np.float32(1e-3)
    image *= 40 + 20 * random[:, 26]  # contrast
    image += 108 + 40 * random[:, 27]  # brightness
    image += _NOISE * _noise(start)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _warped(random: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixel coordinates around the centre, bent by two long waves.

    `random` is `[n, 10, 1, 1]`; x and y are float32 `[n, 48, 48]` each.
    """
    line = np.arange(SIDE, dtype=np.float32) - np.float32((SIDE - 1) / 2)
    x, y = line[None, None, :], line[None, :, None]
    circle = np.float32(2 * np.pi)
    bent = []
    for axis in range(2):
        bend = np.float32(0)
        for wave in range(2):
            direction, phase = (
                random[:, axis * 5 + wave * 2] * circle,
                random[:, axis * 5 + wave * 2 + 1] * circle,
            )
            frequency = np.float32(circle * (0.8 + 0.5 * wave) / SIDE)
            # sin(a + b) = sin(a) cos(b) + cos(a) sin(b): one sine per line, and none per pixel.
            in_x, in_y = (
                frequency * np.cos(direction) * x + phase,
                frequency * np.sin(direction) * y,
            )
            bend = bend + np.sin(in_x) * np.cos(in_y) + np.cos(in_x) * np.sin(in_y)
        bent.append(bend * (np.float32(0.5) + random[:, axis * 5 + 4]))
    return x + bent[0], y + bent[1]


def _pattern(
    pattern: Callable[..., np.ndarray],
    period: float,
    x: np.ndarray,
    y: np.ndarray,
    random: np.ndarray,
) -> np.ndarray:
    """Returns a pattern at a random position, orientation and scale.

    `random` is `[n, 22, 1, 1]`.
    """
    angle = random[:, 0] * np.float32(2 * np.pi)
    pixels = np.float32(period) * np.exp2(random[:, 1] - np.float32(0.5))  # 0.71 to 1.41 times
    cos, sin = np.cos(angle) / pixels, np.sin(angle) / pixels
    if pattern is rings:  # their centre is in the picture
        x, y = x + 24 * (random[:, 2] - np.float32(0.5)), y + 24 * (random[:, 3] - np.float32(0.5))
        return pattern(x * cos + y * sin, y * cos - x * sin, pixels)
    u, v = x * cos + y * sin + 8 * random[:, 2], y * cos - x * sin + 8 * random[:, 3]
    if pattern is blobs:
        return pattern(u, v, pixels, random[:, 4:14, 0, 0])
    return pattern(u, v, pixels)


def _counts(request: Request) -> dict[str, int]:
    if request.pretrain_images is None:
        return COUNTS
    return COUNTS | {"unlabelled": request.pretrain_images}


def _noise(start: np.ndarray) -> np.ndarray:
    """Returns noise of unit variance for each pixel, float32 `[n, 48, 48]`.

    It is the difference of two uniform numbers of 16 bits.
    """
    halves = (
        _numbers(start ^ np.uint64(0x5851F42D4C957F2D), SIDE * SIDE // 2)
        .view(np.uint16)
        .reshape(len(start), SIDE, SIDE, 2)
    )
    return (halves[..., 0].astype(np.float32) - halves[..., 1]) * np.float32(6**0.5 / 65_536)


def _numbers(start: np.ndarray, count: int) -> np.ndarray:
    """Returns uint64 `[n, count]`, from one uint64 each, by SplitMix64.

    Its i-th number needs none of those before it (Steele et al., Fast splittable pseudorandom
    number generators, OOPSLA 2014).
    """
    return _mixed(
        start[:, None] + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    )


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


_ROOT3 = np.float32(3**0.5)
