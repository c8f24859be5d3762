"""Photos side by side, with a line or two under each."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from byol_tf.runs.plots import plt, save_figure

THUMBNAIL = 240
"""Longest side in pixels that a photo is shrunk to."""


@dataclass(frozen=True)
class Shown:
    """A photo on a sheet.

    Attributes:
        pixels: uint8 `[height, width, 3]`; None where it can't be read any more.
        text: under it.
        marked: drawn with a frame, as what the others of its row are compared with.
    """

    pixels: np.ndarray | None
    text: str
    marked: bool = False


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """A photo at a size for a sheet."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return np.asarray(image)


def short_name(name: str, most: int = 24) -> str:
    """The end of a path, which tells photos apart more often than its beginning."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"


def sheet_figure(path: Path, rows: Sequence[Sequence[Shown]], title: str) -> None:
    """Draws rows of photos as a PNG."""
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(1.75 * columns, 2.15 * len(rows) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for line, row in zip(axes, rows, strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, shown in zip(line, row, strict=False):
            if shown.pixels is not None:
                axis.imshow(shown.pixels)
            axis.set_xlabel(shown.text, fontsize=7, parse_math=False)
            if shown.marked:
                axis.spines[:].set(visible=True, edgecolor="#1f5fbf", linewidth=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph"
        )  # a file's name may have signs that the font hasn't
        save_figure(figure, path)
