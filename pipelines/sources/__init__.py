"""Images by index, from wherever they lie."""

from pipelines.sources.base import PhotoManifest, Source, SourceError, SourcePlan, unpacked
from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder.discovery import printable
from pipelines.sources.folder.flat import FlatImageFolder, Photo, read_photo
from pipelines.sources.images import (
    ArrayImages,
    Images,
    LazyImages,
    balanced_indices,
    concatenated,
    resize_and_center_crop,
    resized,
    subset,
    without_labels,
)
from pipelines.sources.loading import held_in_memory
from pipelines.sources.registry import open_source, plan_source, sample_source

__all__ = [
    "ArrayImages",
    "FlatImageFolder",
    "Images",
    "LazyImages",
    "Photo",
    "PhotoManifest",
    "Source",
    "SourceError",
    "SourcePlan",
    "UnreadableImage",
    "balanced_indices",
    "concatenated",
    "held_in_memory",
    "open_source",
    "plan_source",
    "printable",
    "read_photo",
    "resize_and_center_crop",
    "resized",
    "sample_source",
    "subset",
    "unpacked",
    "without_labels",
]
