"""Ten patterns that fill the plane, drawn with NumPy: what the embedded images differ in.

Each function takes plane coordinates `u` and `v`, float32 `[n, side, side]` in periods of the pattern, and `sharp`, float32 `[n, 1, 1]`,
the pixels in a period. It returns float32 `[n, side, side]` in [0, 1], with edges a pixel wide.
"""

import numpy as np

_ROOT3 = np.float32(3**0.5)


def stripes(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Parallel bars."""
    return _edge(_wave(u), sharp)


def checks(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """A chessboard."""
    first, second = _edge(_wave(u / 2), 2 * sharp), _edge(_wave(v / 2), 2 * sharp)
    return first + second - 2 * first * second


def dots(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Discs on a square grid."""
    return _edge(np.float32(0.3) - np.hypot(_from_centre(u), _from_centre(v)), sharp)


def rings(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Circles around one centre, where u = v = 0."""
    return _edge(_wave(np.hypot(u, v)), sharp)


def zigzag(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Bars that turn by a right angle in each period."""
    return _edge(_wave(v + np.abs(_from_centre(u / 2)) * 2), sharp)


def bricks(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Rows of bricks, each row shifted by half a brick."""
    shifted = u / 2 + np.floor(v) / 2
    joint = np.minimum(1 - 2 * np.abs(_from_centre(shifted)), 0.5 - np.abs(_from_centre(v)))
    return _edge(joint - np.float32(0.1), sharp)


def honeycomb(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Outlines of hexagons."""
    inside = np.zeros_like(u)
    for shift in (0.0, 0.5):  # hexagons stand in two interlaced grids
        x = np.abs(_from_centre(u + np.float32(shift)))
        y = np.abs(_from_centre(v / _ROOT3 + np.float32(shift))) * _ROOT3
        inside = np.maximum(inside, 0.5 - np.maximum(x, x / 2 + y * (_ROOT3 / 2)))
    return _edge(np.float32(0.09) - inside, sharp)


def crosses(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Plus signs on a square grid."""
    x, y = np.abs(_from_centre(u)), np.abs(_from_centre(v))
    return _edge(np.minimum(np.float32(0.11) - np.minimum(x, y), np.float32(0.4) - np.maximum(x, y)), sharp)


def triangles(u: np.ndarray, v: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """Triangles, every other one filled."""
    across = u - v / _ROOT3
    along = v * (2 / _ROOT3)
    across, along = across - np.floor(across), along - np.floor(along)
    return _edge(np.minimum(np.minimum(across, along), 1 - across - along) - np.float32(0.04), sharp)


def blobs(u: np.ndarray, v: np.ndarray, sharp: np.ndarray, phases: np.ndarray) -> np.ndarray:
    """Spots without order: five waves across one another. `phases`: float32 `[n, 10]` in [0, 1]."""
    total = np.zeros_like(u)
    for wave in range(5):
        angle = (np.float32(wave) + phases[:, wave, None, None]) * np.float32(np.pi / 5)
        total += np.cos((u * np.cos(angle) + v * np.sin(angle) + phases[:, 5 + wave, None, None]) * np.float32(2 * np.pi))
    return _edge(total * np.float32(0.2), sharp)


def _from_centre(t: np.ndarray) -> np.ndarray:
    """Distance from the middle of its period, -0.5 to 0.5."""
    return t - np.floor(t) - np.float32(0.5)


def _wave(t: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 from -0.25 to 0.25: the distance to the next edge of bars."""
    return np.abs(_from_centre(t)) - np.float32(0.25)


def _edge(distance: np.ndarray, sharp: np.ndarray) -> np.ndarray:
    """1 where `distance`, in periods, is above 0; a pixel wide between."""
    return np.clip(distance * sharp + np.float32(0.5), 0, 1)
