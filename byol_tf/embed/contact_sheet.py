"""Sheets of photos with captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from byol_tf.runs.plots import ONLINE, plt, save_figure
from pipelines.sources import false_color

THUMBNAIL_SIZE = 240
"""Longest side of a thumbnail in pixels."""


@dataclass(frozen=True)
class Cell:
    """A photo on a sheet.

    Attributes:
        pixels: uint8 `[height, width, 3]`; None leaves the cell empty.
        caption: the text below the photo.
        framed: whether to draw a frame, as around the photo that others are compared with.
    """

    pixels: np.ndarray | None
    caption: str
    framed: bool = False


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Shrinks a photo of any channels to `THUMBNAIL_SIZE`: uint8 `[height, width, 3]`."""
    image = Image.fromarray(false_color(pixels))
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def short_name(name: str, length: int = 24) -> str:
    """Returns the last folders and the file of a path, as many as `length` characters hold.

    The end of a path distinguishes photos more often than its beginning. A longer file name loses
    its middle.
    """
    if len(name) <= length:
        return name
    folders = name.split("/")
    for first in range(1, len(folders)):
        short = "/".join(["…", *folders[first:]])
        if len(short) <= length:
            return short
    end = length // 2
    return f"{folders[-1][: length - end - 1]}…{folders[-1][-end:]}"


def write_sheet(path: Path, rows: Sequence[Sequence[Cell]], title: str) -> None:
    """Draws rows of photos as a PNG."""
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(1.75 * columns, 2.15 * len(rows) + 0.4),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row_axes, row in zip(axes, rows, strict=True):
        for axis, cell in zip(row_axes, row, strict=False):
            if cell.pixels is not None:
                axis.imshow(cell.pixels)
            axis.set_xlabel(cell.caption, fontsize=7, parse_math=False)
            if cell.framed:
                axis.spines[:].set(visible=True, edgecolor=ONLINE, linewidth=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, parse_math=False)
    save_figure(figure, path)
