"""Image sources: images by index from files, shards, data sets, arrays or the seed."""

from pipelines.sources.base import GivenImages, RawSource, Request, Source, SourceError, SourceInfo
from pipelines.sources.flat_opening import open_flat_images
from pipelines.sources.folder.discovery import printable
from pipelines.sources.folder.flat import FlatImageFolder, FlatImages, Photo, Photos, read_photo
from pipelines.sources.folder.table import TableRow, read_table
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.images import (
    ArrayImages,
    Images,
    LazyImages,
    concatenated,
    resize_and_center_crop,
    resized,
    subset,
    without_labels,
)
from pipelines.sources.manifest import PhotoManifest
from pipelines.sources.opening import open_source, plan_source, sample_source
from pipelines.sources.pixels import RGB, PixelFormat, false_color
from pipelines.sources.remote import Unreachable
from pipelines.sources.selection import balanced_indices
from pipelines.sources.unreadable import TooManyUnreadable, unreadable_examples

__all__ = [
    "RGB",
    "ArrayImages",
    "FlatImageFolder",
    "FlatImages",
    "GivenImages",
    "Images",
    "LazyImages",
    "Photo",
    "PhotoManifest",
    "Photos",
    "PixelFormat",
    "RawSource",
    "Request",
    "Source",
    "SourceError",
    "SourceInfo",
    "TableRow",
    "TooManyUnreadable",
    "Unreachable",
    "UnreadableImage",
    "balanced_indices",
    "concatenated",
    "false_color",
    "open_flat_images",
    "open_source",
    "plan_source",
    "printable",
    "read_photo",
    "read_table",
    "resize_and_center_crop",
    "resized",
    "sample_source",
    "subset",
    "unreadable_examples",
    "without_labels",
]
