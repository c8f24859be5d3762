"""Opens photos without labels: below a folder, or in shards."""

import os

from pipelines.sources.base import Progress, SourceError, ignore_progress
from pipelines.sources.folder.flat import FlatImageFolder, FlatImages
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.shards.finding import is_shards
from pipelines.sources.shards.flat import open_flat_shards


def open_flat_images(
    root: str,
    option: str,
    on_progress: Progress = ignore_progress,
    pixels: PixelFormat = RGB,
) -> FlatImages:
    """Opens all photos at a place.

    Args:
        root: a folder of photos; or shards: a file, a pattern, or a folder of them without photos.
        option: its name in messages.
        on_progress: called while shards are indexed.
        pixels: channels, depth and range of the photos; those of shards are RGB of 8 bits.

    Raises:
        SourceError: there are none.
    """
    if is_shards(root) and pixels.is_rgb:
        return open_flat_shards(root, option, on_progress)
    try:
        return FlatImageFolder(root, option, pixels)
    except SourceError:
        if not pixels.is_rgb or not (os.path.isdir(root) and any(map(is_shards, os.listdir(root)))):
            raise
    return open_flat_shards(root, option, on_progress)
