"""The two ways in: what a source would give, and the source itself."""

import importlib
from types import ModuleType

from pipelines.sources.assembly import assembled, planned
from pipelines.sources.source import Progress, Request, Source, SourceError, SourcePlan

_MODULES = {  # imported when asked for: scikit-learn and TFDS take their time
    "textures": "pipelines.sources.textures",
    "digits": "pipelines.sources.digits",
    "folder": "pipelines.sources.folder",
    "stl10": "pipelines.sources.stl10",
    "cifar10": "pipelines.sources.cifar10",
    "imagenet": "pipelines.sources.imagenet",
}
_TAKES_ROOT = ("folder", "stl10", "cifar10", "imagenet")
_TAKES_ARCHIVE = ("stl10", "cifar10", "imagenet")


def _silent(what: str, done: int, total: int) -> None:
    """Progress that nobody asked for."""


def open_source(
    source: str,
    *,
    root: str | None = None,
    archive: str | None = None,
    pretrain: str | None = None,
    pretrain_images: int | None = None,
    image_size: int | None = None,
    cache: str = "auto",
    max_bad_fraction: float = 0.01,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Source:
    """Opens a source of images; a TFDS one is downloaded and prepared if it isn't yet.

    Args:
        source: "textures", "digits", "folder", "stl10", "cifar10" or "imagenet".
        root: the folder of photos; for TFDS, where prepared data sets lie (None: TFDS's own place).
        archive: TFDS without network: the downloaded file; for "imagenet" the folder with its two tars.
        pretrain: "unlabelled", "train" or "train+unlabelled"; None: the unlabelled images where there are any, else train.
        pretrain_images: at most so many to pre-train on, drawn by the seed; for "textures", how many are drawn.
        image_size: the shorter side is resized to it and the centre cut out; None: images stay as they are (digits: 32).
        cache: "memory" holds all images as uint8, "none" reads them each time, "auto" holds them if they fit into half of the free memory.
        max_bad_fraction: for "folder": a larger share of unreadable files is an error.
        seed: of every draw.
        on_progress: called with (what is being done, images done, of how many).

    Raises:
        SourceError: the images can't be had as asked.
    """
    request = Request(source, root, archive, pretrain, pretrain_images, image_size, cache, max_bad_fraction, seed, on_progress or _silent)
    return assembled(request, _module(request).parts(request))


def plan_source(
    source: str,
    *,
    root: str | None = None,
    archive: str | None = None,
    pretrain: str | None = None,
    pretrain_images: int | None = None,
    image_size: int | None = None,
    cache: str = "auto",
    max_bad_fraction: float = 0.01,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> SourcePlan:
    """Says what `open_source` with the same arguments would give. Writes, downloads and decodes nothing.

    Raises:
        SourceError: the images can't be had as asked, as far as that shows without opening them.
    """
    request = Request(source, root, archive, pretrain, pretrain_images, image_size, cache, max_bad_fraction, seed, on_progress or _silent)
    return planned(request, _module(request).outline(request))


def _module(request: Request) -> ModuleType:
    if request.source not in _MODULES:
        raise SourceError(f'data.source: expected one of {", ".join(_MODULES)}; received "{request.source}"')
    if request.cache not in ("auto", "memory", "none"):
        raise SourceError(f'data.cache: expected "auto", "memory" or "none"; received "{request.cache}"')
    for key, value, takers in (("root", request.root, _TAKES_ROOT), ("archive", request.archive, _TAKES_ARCHIVE)):
        if value is not None and request.source not in takers:
            raise SourceError(f'data.{key} is "{value}", but "{request.source}" reads none; it is for {", ".join(takers)}')
    return importlib.import_module(_MODULES[request.source])
