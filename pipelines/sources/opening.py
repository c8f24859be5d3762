"""Opens, plans and samples the sources of `pipelines.registry` by name."""

import importlib
from dataclasses import replace
from types import ModuleType
from typing import Any

from pipelines.registry import SOURCES
from pipelines.sources.base import Request, Source, SourceError, SourceInfo
from pipelines.sources.building import build_plan, build_sample, build_source
from pipelines.sources.folder.layout import LAYOUTS
from pipelines.sources.images import Images


def open_source(source: str, **options: Any) -> Source:
    """Opens a source of images; a TFDS one is downloaded and prepared if it isn't yet.

    Args:
        source: name of one of `pipelines.registry.SOURCES`.
        **options: the other fields of `Request`.

    Raises:
        SourceError: the images can't be had as requested.

    Example:
        ```python
        source = open_source("folder", root="photos", image_size=96)
        print(len(source.pretrain), source.pretrain[0].shape, *source.notes, sep=" | ")
        ```
    """
    request = Request(source, **options)
    return build_source(request, _module(request).load(request))


def plan_source(source: str, **options: Any) -> SourceInfo:
    """Describes what `open_source` would return. Writes, downloads and decodes nothing.

    Args:
        source: name of one of `pipelines.registry.SOURCES`.
        **options: the other fields of `Request`.

    Raises:
        SourceError: the images can't be had as requested, as far as that shows without opening
            them.
    """
    request = Request(source, **options)
    return build_plan(request, _module(request).describe(request))


def sample_source(source: str, count: int, **options: Any) -> Images | None:
    """Returns some of the images to pre-train on, read as `open_source` would, but no others.

    Args:
        source: name of one of `pipelines.registry.SOURCES`.
        count: largest number of images.
        **options: the other fields of `Request`.

    Returns:
        The readable ones, without labels; None if the data set would have to be downloaded or
        prepared first.

    Raises:
        SourceError: the images can't be had as requested.
    """
    request = Request(source, **options)
    module = _module(request)
    info = module.describe(request)
    if not info.ready:
        return None
    few = replace(request, pretrain_images=min(count, request.pretrain_images or count))
    return build_sample(few, module.load(few), in_memory=build_plan(request, info).in_memory)


def _module(request: Request) -> ModuleType:
    """Imports the module of the source. Raises SourceError for a key that the source ignores."""
    if request.source not in SOURCES:
        raise SourceError(
            f'data.source: expected one of {", ".join(SOURCES)}; received "{request.source}"'
        )
    if request.cache not in ("auto", "memory", "none"):
        raise SourceError(
            f'data.cache: expected "auto", "memory" or "none"; received "{request.cache}"'
        )
    if request.check not in ("pixels", "headers"):
        raise SourceError(f'check: expected "pixels" or "headers"; received "{request.check}"')
    if request.check == "headers" and request.on_lost is None:
        raise SourceError('check: "headers" leaves photos to be lost later, so it needs on_lost')
    if request.layout not in LAYOUTS:
        raise SourceError(
            f'data.layout: expected one of {", ".join(LAYOUTS)}; received "{request.layout}"'
        )
    for key, value in (("root", request.root), ("archive", request.archive)):
        if value is not None and key not in SOURCES[request.source].takes:
            takers = [source.name for source in SOURCES.values() if key in source.takes]
            raise SourceError(
                f'data.{key} is "{value}", but "{request.source}" reads none; it is for '
                f"{', '.join(takers)}"
            )
    return importlib.import_module(SOURCES[request.source].module)
