"""Images by index, from wherever they lie."""

from pipelines.sources.decoding import UnreadableImage
from pipelines.sources.folder_walk import printable
from pipelines.sources.heap import Heap, Photo, read_photo
from pipelines.sources.images import ArrayImages, Images, LazyImages, balanced_indices, concatenated, fit, fitted, subset, without_labels
from pipelines.sources.opening import open_source, plan_source, sample_source
from pipelines.sources.reading import held_in_memory
from pipelines.sources.roll import Roll, unpacked
from pipelines.sources.source import Source, SourceError, SourcePlan

__all__ = [
    "ArrayImages",
    "Heap",
    "Images",
    "LazyImages",
    "Photo",
    "Roll",
    "Source",
    "SourceError",
    "SourcePlan",
    "UnreadableImage",
    "balanced_indices",
    "concatenated",
    "fit",
    "fitted",
    "held_in_memory",
    "open_source",
    "plan_source",
    "printable",
    "read_photo",
    "sample_source",
    "subset",
    "unpacked",
    "without_labels",
]
