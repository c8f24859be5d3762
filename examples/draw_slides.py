"""Draws a folder of photos as a microscope gives them: the data set of docs/tutorial.md.

    python examples/draw_slides.py slides

writes `slides/unlabeled/` (4,000 photos), `slides/train/<kind>/` (20 each) and
`slides/test/<kind>/` (100 each), JPEG files of 96 x 96 pixels. Each shows cells of one kind, which
is its label. Light, stain, and the number, size, place and direction of the cells differ from photo
to photo and say nothing of the kind. The same command draws the same files.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE, SCALE = 96, 3  # drawn three times as large and reduced, so that edges are smooth
LIGHT, STAIN = (238, 226, 232), (112, 62, 140)  # of slide and cells, as Gram's stain
COUNTS = {"unlabeled": 4_000, "train": 140, "test": 700}
Points = list[np.ndarray]


def disc(radius: float, x: float = 0, y: float = 0, squeeze: float = 1) -> np.ndarray:
    """Returns the outline of an ellipse around (x, y), `[n, 2]`."""
    angle = np.linspace(0, 2 * np.pi, 40)
    return np.stack([x + radius * np.cos(angle), y + radius * squeeze * np.sin(angle)], -1)


def stroke(path: np.ndarray, width: float) -> Points:
    """Returns discs along a path, which together are a thick line."""
    return [disc(width, *point) for point in path]


def rod(rng: np.random.Generator) -> Points:
    """A straight rod."""
    return stroke(np.stack([np.linspace(-1, 1, 16), np.zeros(16)], -1), 0.28)


def chain(rng: np.random.Generator) -> Points:
    """Four spheres in a bent row."""
    bend = rng.uniform(-0.3, 0.3)
    return [disc(0.3, x, bend * x * x) for x in (-0.9, -0.3, 0.3, 0.9)]


def spiral(rng: np.random.Generator) -> Points:
    """A thin, wavy thread."""
    x = np.linspace(-1.3, 1.3, 40)
    return stroke(np.stack([x, 0.35 * np.sin(x * 6)], -1), 0.12)


def pollen(rng: np.random.Generator) -> Points:
    """A grain with spikes."""
    angle = np.linspace(0, 2 * np.pi, 49)
    radius = np.where(np.arange(49) % 4 < 2, 1.0, 0.66)
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)]


def yeast(rng: np.random.Generator) -> Points:
    """An oval cell with a bud."""
    return [disc(0.75, squeeze=0.8), disc(0.38, 0.95, 0.25)]


def sickle(rng: np.random.Generator) -> Points:
    """A crescent."""
    angle = np.linspace(-1.9, 1.9, 30)
    outer = np.stack([np.cos(angle), np.sin(angle)], -1)
    inner = np.stack([np.cos(angle[::-1]) * 0.7 - 0.15, np.sin(angle[::-1]) * 0.7], -1)
    return [np.concatenate([outer, inner])]


def ring(rng: np.random.Generator) -> Points:
    """A red blood cell, pale in its middle."""
    hole = disc(0.42)
    return [np.concatenate([disc(0.85), hole[::-1]])]


KINDS: dict[str, Callable[[np.random.Generator], Points]] = {
    each.__name__: each for each in (chain, pollen, ring, rod, sickle, spiral, yeast)
}


def draw(kind: str, rng: np.random.Generator) -> Image.Image:
    """Draws one photo of a kind of cell."""
    size = SIDE * SCALE
    light = np.array(LIGHT) * rng.uniform(0.9, 1.0)
    stain = np.array(STAIN) * rng.uniform(0.9, 1.1)
    image = Image.new("RGB", (size, size), tuple(light.astype(int)))
    canvas = ImageDraw.Draw(image)
    scale = size * rng.uniform(0.08, 0.1)
    for _ in range(rng.integers(12, 19)):
        angle, place = rng.uniform(0, 2 * np.pi), rng.uniform(0, size, 2)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shade = tuple((stain * rng.uniform(0.9, 1.1)).clip(0, 255).astype(int))
        for outline in KINDS[kind](rng):
            canvas.polygon(list(map(tuple, outline @ turn * scale + place)), fill=shade)
    image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    image = image.filter(ImageFilter.GaussianBlur(0.5))
    pixels = np.asarray(image) + rng.normal(0, 4, (SIDE, SIDE, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write(folder: Path, counts: dict[str, int]) -> None:
    """Draws so many photos of each split into a new folder."""
    folder.mkdir(parents=True)
    kinds = list(KINDS)
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng(number)
        for index in range(count):
            kind = kinds[index % len(kinds)]
            path = folder / split / ("" if split == "unlabeled" else kind) / f"{index:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(kind, rng).save(path, quality=90)


def main() -> None:
    """Reads the folder's name from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that doesn't exist yet")
    folder = parser.parse_args().folder
    write(folder, COUNTS)
    print(f"{folder}: {sum(COUNTS.values()):,} photos, {len(KINDS)} kinds of cells")


if __name__ == "__main__":
    main()
