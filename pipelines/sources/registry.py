"""The ways in: what a source would give, a few of its images, and the source itself."""

import importlib
from dataclasses import replace
from types import ModuleType

from pipelines.sources.base import Request, Source, SourceError, SourcePlan
from pipelines.sources.images import Images
from pipelines.sources.splits import build_plan, build_sample, build_source

_MODULES = {  # imported when asked for: scikit-learn and TFDS take their time
    "textures": "pipelines.sources.textures",
    "digits": "pipelines.sources.digits",
    "folder": "pipelines.sources.folder.source",
    "stl10": "pipelines.sources.tfds.datasets",
    "cifar10": "pipelines.sources.tfds.datasets",
    "imagenet": "pipelines.sources.tfds.datasets",
}
_TAKES_ROOT = ("folder", "stl10", "cifar10", "imagenet")
_TAKES_ARCHIVE = ("stl10", "cifar10", "imagenet")


def open_source(source: str, **options) -> Source:
    """Opens a source of images; a TFDS one is downloaded and prepared if it isn't yet.

    Args:
        source: "textures", "digits", "folder", "stl10", "cifar10" or "imagenet".
        **options: the other fields of `Request`.

    Raises:
        SourceError: the images can't be had as asked.
    """
    request = Request(source, **options)
    return build_source(request, _module(request).load(request))


def plan_source(source: str, **options) -> SourcePlan:
    """Says what `open_source` with the same arguments would give. Writes, downloads and decodes
    nothing.

    Raises:
        SourceError: the images can't be had as asked, as far as that shows without opening them.
    """
    request = Request(source, **options)
    return build_plan(request, _module(request).describe(request))


def sample_source(source: str, count: int, **options) -> Images | None:
    """Some of the images to pre-train on, to try out what comes after: read as `open_source` would
    have them read, without looking at the others.

    Args:
        source, **options: as `open_source`.
        count: at most so many.

    Returns:
        Those that can be read, without labels; None if the data set would have to be downloaded or
        prepared first.

    Raises:
        SourceError: the images can't be had as asked.
    """
    request = Request(source, **options)
    module = _module(request)
    outline = module.describe(request)
    if not outline.ready:
        return None
    few = replace(request, pretrain_images=min(count, request.pretrain_images or count))
    return build_sample(few, module.load(few), hold=build_plan(request, outline).in_memory)


def _module(request: Request) -> ModuleType:
    if request.source not in _MODULES:
        raise SourceError(
            f'data.source: expected one of {", ".join(_MODULES)}; received "{request.source}"'
        )
    if request.cache not in ("auto", "memory", "none"):
        raise SourceError(
            f'data.cache: expected "auto", "memory" or "none"; received "{request.cache}"'
        )
    for key, value, takers in (
        ("root", request.root, _TAKES_ROOT),
        ("archive", request.archive, _TAKES_ARCHIVE),
    ):
        if value is not None and request.source not in takers:
            raise SourceError(
                f'data.{key} is "{value}", but "{request.source}" reads none; it is for '
                f"{', '.join(takers)}"
            )
    return importlib.import_module(_MODULES[request.source])
