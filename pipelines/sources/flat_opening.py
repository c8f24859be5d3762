"""Opens photos without labels: below a folder, or in shards."""

import os
from collections.abc import Callable
from pathlib import Path

from pipelines.sources.base import Progress, SourceError, ignore_progress
from pipelines.sources.folder.flat import FlatImageFolder, FlatImages
from pipelines.sources.remote import Location
from pipelines.sources.shards.finding import is_shards
from pipelines.sources.shards.flat import open_flat_shards


def open_flat_images(
    root: str,
    option: str,
    cache_folder: Callable[[Location], Path],
    on_progress: Progress = ignore_progress,
) -> FlatImages:
    """Opens all photos at a place.

    Args:
        root: a folder of photos; or shards: a file, a pattern, or a folder of them without photos.
        option: its name in messages.
        cache_folder: from where the photos lie to a folder for the index of shards, which
            `FlatImages.save_index` writes.
        on_progress: called while shards are indexed.

    Raises:
        SourceError: there are none.
    """
    if is_shards(root):
        return open_flat_shards(root, option, cache_folder, on_progress)
    try:
        return FlatImageFolder(root, option)
    except SourceError:
        if not (os.path.isdir(root) and any(map(is_shards, os.listdir(root)))):
            raise
    return open_flat_shards(root, option, cache_folder, on_progress)
