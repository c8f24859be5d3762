"""All images of some shards, without labels."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipelines.sources.base import Progress, SourceError
from pipelines.sources.folder.flat import FlatImages, Photo, Photos
from pipelines.sources.pixels import PixelFormat
from pipelines.sources.remote import Location, RemotePath
from pipelines.sources.shards.fetching import ShardImages
from pipelines.sources.shards.finding import find_shards
from pipelines.sources.shards.index import IndexCache
from pipelines.urls import is_url


def open_flat_shards(
    root: str,
    option: str,
    cache_folder: Callable[[Location], Path],
    on_progress: Progress,
    pixels: PixelFormat,
) -> FlatImages:
    """Opens the images of shards, in their order.

    A photo's path is the name of its shard and its name in it; `modified` is a number that changes
    with the shard.

    Args:
        root: of the shards, see `find_shards`.
        option: its name in messages.
        cache_folder: from where the shards lie to the folder of their index, which may not exist.
        on_progress: called while the shards are indexed.
        pixels: channels, depth and range of the photos.

    Raises:
        SourceError: there are no shards, or no images in them.
    """
    remote = RemotePath(root, option)
    location = remote if is_url(root) else Path(remote.path)
    cache = IndexCache(root, str(cache_folder(location)), pixels)
    try:
        shards = find_shards(root)
        known = cache.index(shards, on_progress)
    except SourceError as error:
        raise SourceError(str(error).replace("data.root:", f"{option}:", 1)) from error
    indices = [known[shard.name] for shard in shards]
    files = ShardImages(shards, indices, {})
    if not files.names:
        raise SourceError(f"{option}: {root}: {len(shards):,} shard(s) without an image")
    stamps = [int(hashlib.sha256(index.stamp.encode()).hexdigest()[:12], 16) for index in indices]
    photos = Photos(
        files.names,
        files.spans[:, 2],
        np.repeat(np.array(stamps, np.int64), [len(index.names) for index in indices]),
    )

    def open_image(path: str) -> io.BytesIO:
        row = photos.row_of_path(path)
        if row is None:
            raise FileNotFoundError(path)
        return io.BytesIO(files.read(row))

    def prefetch(soon: Sequence[Photo]) -> None:
        rows = (photos.row_of_path(photo.path) for photo in soon)
        files.fetch(np.array([row for row in rows if row is not None], np.int64))

    return FlatImages(location, photos, open_image, {}, [], pixels, cache.save, prefetch)
