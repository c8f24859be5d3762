"""Opens photos without labels: below a folder, or in shards."""

import os
from collections.abc import Callable
from pathlib import Path

from pipelines.sources.base import Progress, SourceError, ignore_progress
from pipelines.sources.folder.flat import FlatImageFolder, FlatImages
from pipelines.sources.pixels import RGB, PixelFormat
from pipelines.sources.remote import Location
from pipelines.sources.shards.finding import find_shards, is_shards
from pipelines.sources.shards.flat import open_flat_shards
from pipelines.urls import is_url


def open_flat_images(
    root: str,
    option: str,
    cache_folder: Callable[[Location], Path],
    on_progress: Progress = ignore_progress,
    pixels: PixelFormat = RGB,
) -> FlatImages:
    """Opens all photos at a place.

    Args:
        root: a folder of photos; or shards: a file, a pattern, or a folder of them without photos.
        option: its name in messages.
        cache_folder: from where the photos lie to a folder for the index of shards, which
            `FlatImages.save_index` writes.
        on_progress: called while shards are indexed.
        pixels: channels, depth and range of the photos.

    Raises:
        SourceError: there are none.
    """
    if not is_shards(root):
        try:
            return FlatImageFolder(root, option, pixels)
        except SourceError:
            if not _holds_shards(root):
                raise
    return open_flat_shards(root, option, cache_folder, on_progress, pixels)


def _holds_shards(folder: str) -> bool:
    if not is_url(folder):
        return os.path.isdir(folder) and any(map(is_shards, os.listdir(folder)))
    try:
        return bool(find_shards(folder))
    except SourceError:
        return False
