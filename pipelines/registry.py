"""Registry of image sources: the module that opens each, and what configs check about it.

To add a source, write a module with two functions and add an entry below:

* `describe(request: Request) -> SourceInfo` says what the source has; it writes, downloads and
  decodes nothing.
* `load(request: Request) -> RawSource` returns the images; it downloads and prepares them if need
  be.

Both raise `SourceError`. The module is imported when the source is used: a config is checked
before NumPy or TensorFlow is imported.
"""

from dataclasses import dataclass
from typing import Literal

MAX_CHANNELS = 16
"""Largest number of channels of an image."""


@dataclass(frozen=True)
class DataSource:
    """Declaration of an image source.

    Attributes:
        name: of the source, as in a config's `data.source`.
        module: that defines `describe` and `load`.
        root: what `Request.root` is where one is needed, for messages; else None.
        takes: the keys of `Request` that it reads, of "root" and "archive".
        image_side: side of its images in pixels, where all are squares of one size.
        default_side: side at which its images are drawn if `image_size` is None, where they can be
            drawn at any size.
        sizes_differ: whether its images may differ in size.
        has_unlabelled: whether it may have images without labels.
        any_pixels: whether its images may have other channels than RGB's, and 16 bits.
    """

    name: str
    module: str
    root: str | None = None
    takes: tuple[Literal["root", "archive"], ...] = ()
    image_side: int | None = None
    default_side: int | None = None
    sizes_differ: bool = False
    has_unlabelled: bool = True
    any_pixels: bool = False

    @property
    def downloads(self) -> bool:
        """True if opening the source may download it."""
        return "archive" in self.takes


_FOLDER = "pipelines.sources.folder.source"
_TFDS = "pipelines.sources.tfds.datasets"
_DOWNLOAD: tuple[Literal["root", "archive"], ...] = ("root", "archive")

_SOURCES = (
    DataSource("textures", "pipelines.sources.textures", image_side=48),
    DataSource("digits", "pipelines.sources.digits", default_side=32, has_unlabelled=False),
    DataSource(
        "folder",
        _FOLDER,
        root="the folder that holds the photos",
        takes=("root",),
        sizes_differ=True,
        any_pixels=True,
    ),
    DataSource(
        "shards",
        "pipelines.sources.shards.source",
        root="the folder of the shards or a pattern that names them",
        takes=("root",),
        sizes_differ=True,
        any_pixels=True,
    ),
    DataSource(
        "huggingface",
        "pipelines.sources.huggingface",
        root="the name of a data set or the folder that it was saved to",
        takes=("root",),
        sizes_differ=True,
        any_pixels=True,
    ),
    DataSource("stl10", _TFDS, takes=_DOWNLOAD, image_side=96),
    DataSource("cifar10", _TFDS, takes=_DOWNLOAD, image_side=32, has_unlabelled=False),
    DataSource("imagenet", _TFDS, takes=_DOWNLOAD, sizes_differ=True, has_unlabelled=False),
    DataSource("arrays", "pipelines.sources.arrays", sizes_differ=True, any_pixels=True),
)
SOURCES: dict[str, DataSource] = {source.name: source for source in _SOURCES}
