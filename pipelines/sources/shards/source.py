"""The source "shards": tar, TFRecord, ArrayRecord or Parquet files of images.

They lie on this disk or behind a URL, and are never changed.
"""

from pipelines.sources.base import RawSource, Request, SourceError, SourceInfo
from pipelines.sources.folder.discovery import abbreviated
from pipelines.sources.remote import RemotePath
from pipelines.sources.shards.fetching import ShardImages
from pipelines.sources.shards.finding import Shard, find_shards
from pipelines.sources.shards.index import IndexCache, ShardIndex
from pipelines.sources.shards.layout import PlacedImages
from pipelines.sources.shards.photos import Container, describe_container, load_container


def describe(request: Request) -> SourceInfo:
    """Counts the images in the shards, whose headers are read. Raises SourceError."""
    return describe_container(request, _container(request))


def load(request: Request) -> RawSource:
    """Returns the images, read when they are accessed. Raises SourceError."""
    return load_container(request, _container(request))


def _container(request: Request) -> Container:
    shards = find_shards(request.root)
    root = str(request.root)
    cache = IndexCache(root, request.scan_folder, request.pixels)
    if request.manifest is not None:
        shards, known = _former_shards(shards, cache, request)
    else:
        known = {}
    present = [shard for shard in shards if shard.name not in known]
    indices = cache.index(present, request.on_progress) | known
    of_shard = [indices[shard.name] for shard in shards]
    files = ShardImages(shards, of_shard, dict.fromkeys(known, "its shard is gone or has changed"))
    images = PlacedImages(
        names=files.names,
        paths=[name for index in of_shard for name in index.names],
        roles=[
            role
            for shard, index in zip(shards, of_shard, strict=True)
            for role in [shard.role] * len(index.names)
        ],
        classes=[label for index in of_shard for label in index.labels],
        sizes=files.spans[:, 2].tolist(),
    )
    if not images.names:
        raise SourceError(f"data.root: {root}: {len(shards):,} shard(s) without an image")
    # The order of a run stays, wherever its shards lie by now.
    begun = request.manifest
    by_blocks = files.reads_blocks if begun is None else begun.by_blocks
    megabytes = sum(shard.size for shard in shards) / 1e6
    return Container(
        root=RemotePath(root),
        images=images,
        read=files.read,
        sizes={shard.name: shard.size for shard in shards},
        notes=(
            f"{len(images.names):,} images in {len(shards):,} shard(s) of {root} "
            f"({shards[0].kind}), {megabytes:,.1f} MB",
        ),
        facts=[facts for index in of_shard for facts in index.facts],
        remote=files.is_remote,
        save=cache.save,
        blocks=files.blocks if by_blocks else None,
        fetch=files.fetch,
    )


def _former_shards(
    shards: list[Shard], cache: IndexCache, request: Request
) -> tuple[list[Shard], dict[str, ShardIndex]]:
    """Returns the shards that a resumed run began with, and the index of each that is gone.

    Raises:
        SourceError: more images are gone than may be lost.
    """
    sizes = request.manifest.sizes if request.manifest is not None else {}
    present = {shard.name: shard for shard in shards if sizes.get(shard.name) == shard.size}
    gone = {name: cache.former(name, size) for name, size in sizes.items() if name not in present}
    known = {name: index for name, index in gone.items() if index is not None}
    images = sum(len(index.names) for index in known.values())
    total = images + sum(
        len(index.names) for index in cache.index(present.values(), request.on_progress).values()
    )
    if len(known) < len(gone) or images > request.max_unreadable_fraction * total:
        raise SourceError(
            f"{request.root}: {len(gone):,} of {len(sizes):,} shards that this run began with are "
            f"gone or have changed ({abbreviated(gone)}), more than data.max_unreadable_fraction = "
            f"{request.max_unreadable_fraction:g} allows. Bring those back, or start a new run in "
            "another folder"
        )
    kind, location = shards[0].kind, shards[0].location
    former = [
        present[name]
        if name in present
        else Shard(name, location, sizes[name], known[name].stamp, kind)
        for name in sizes
    ]
    return former, known
