"""Sets of images accessed by index: in memory, lazy, subsets, concatenated, resized.

Order, resuming and sharding are then functions of (seed, epoch, position) alone: a reader can begin
anywhere. Reading changes no state, so several threads may read at once.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from PIL import Image

from pipelines.registry import MAX_CHANNELS
from pipelines.sources.blocks import Blocks
from pipelines.sources.pixels import RGB, PixelFormat, resize_image

Shape = tuple[int, int, int]

REQUESTS = 64
"""Remote images that are read at once: each waits for its server, some ten milliseconds."""


class Images(ABC):
    """A set of images, each accessed by its index.

    Attributes:
        labels: int64 `[n]`, the class of each image, or None where the images have no labels.
        shape: `(height, width, channels)` of every image, or None where they differ, aren't all
            decoded yet, or are too large for batches.
        remote: whether reading an image waits for a server, so that many are to be read at once.
        blocks: those that the order of training keeps together, or None.
        channels: of every image.
        dtype: of every image, uint8 or uint16.
    """

    labels: np.ndarray | None
    shape: Shape | None
    remote: bool = False
    blocks: Blocks | None = None
    channels: int = RGB.channels
    dtype: np.dtype = RGB.dtype

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> np.ndarray:
        """Returns an image.

        Args:
            index: 0 to n - 1.

        Returns:
            uint8 `[height, width, 3]`, RGB; or what `channels` and `dtype` say.

        Raises:
            IndexError: the index lies outside.
        """

    def shape_of(self, index: int) -> Shape:
        """Returns the shape of `self[index]`, which may be known without reading it.

        Raises what `self[index]` raises.
        """
        return self[index].shape

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """Returns several images.

        Args:
            indices: int `[k]`.

        Returns:
            uint8 `[k, height, width, 3]`, or of other `channels` and `dtype`.

        Raises:
            ValueError: `shape` is None.
        """
        if self.shape is None:
            raise ValueError("batch: expected images of one shape; these differ in size")
        out = np.empty((len(indices), *self.shape), self.dtype)

        def read(row: int) -> None:
            out[row] = self[int(indices[row])]

        _for_each(read, range(len(indices)), at_once=self.remote)
        return out

    def prefetch(self, indices: np.ndarray) -> None:  # noqa: B027 - most need no request
        """Begins to fetch images that are read soon, many by one request; returns at once.

        Nothing depends on it but the number of requests.

        Args:
            indices: int64 `[k]`.
        """

    def encoded(self, index: int) -> bytes | None:
        """Returns the file of an image if any region of it can be decoded alone.

        Returns:
            A JPEG any region of which decodes to the same pixels as in `self[index]`; None for any
            other file, unreadable ones included.

        Raises:
            IndexError: the index lies outside 0..n-1.
        """
        _check_index(index, len(self))
        return None


class ArrayImages(Images):
    """Images in memory.

    Args:
        images: uint8 or uint16 `[n, height, width, channels]`, of 1 to 16 channels.
        labels: integers `[n]`, or None.
        batchable: False for images that are too large to be processed in batches; their `shape`
            is None then, as if they differed.
        blocks: those that the images were read in, see `Images`.

    Raises:
        ValueError: images or labels are of another type or shape.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        batchable: bool = True,
        blocks: Blocks | None = None,
    ) -> None:
        if (
            images.dtype not in (np.uint8, np.uint16)
            or images.ndim != 4
            or not 1 <= images.shape[3] <= MAX_CHANNELS
        ):
            raise ValueError(
                "images: expected uint8 or uint16 [n, height, width, channels] of 1 to "
                f"{MAX_CHANNELS} channels, received {images.dtype} {list(images.shape)}"
            )
        self._images = images
        self.labels = _checked_labels(labels, len(images))
        self.shape = images.shape[1:] if batchable else None
        self.channels, self.dtype, self.blocks = images.shape[3], images.dtype, blocks

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        return self._images[index]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """See `Images`."""
        return self._images[np.asarray(indices, np.int64)]


class _Wrapped(Images):
    """Images made from those of another set, whose properties they have."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self.labels, self.remote, self.blocks = images.labels, images.remote, images.blocks
        self.channels, self.dtype = images.channels, images.dtype

    def __len__(self) -> int:
        return len(self._images)

    def prefetch(self, indices: np.ndarray) -> None:
        """See `Images`."""
        self._images.prefetch(indices)


class CachedImages(_Wrapped):
    """Images that are read at their first use, and kept in memory from then on.

    Args:
        images: of one shape.
        shape: theirs.
        batchable: as of `ArrayImages`.
    """

    def __init__(self, images: Images, shape: Shape, *, batchable: bool = True) -> None:
        super().__init__(images)
        # Pages of np.empty cost nothing until they are written.
        self._pixels = np.empty((len(images), *shape), images.dtype)
        self._is_read = np.zeros(len(images), bool)
        self.shape = shape if batchable else None

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        self._read(index)
        return self._pixels[index]

    def prefetch(self, indices: np.ndarray) -> None:
        """See `Images`."""
        self._images.prefetch(indices[~self._is_read[indices]])

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """See `Images`."""
        indices = np.asarray(indices, np.int64)
        _for_each(self._read, indices[~self._is_read[indices]].tolist(), at_once=self.remote)
        return self._pixels[indices]

    def _read(self, index: int) -> None:
        # Two threads that read the same image write the same pixels.
        if not self._is_read[index]:
            self._pixels[index] = self._images[index]
            self._is_read[index] = True


class LazyImages(Images):
    """Images that a function reads each time they are accessed.

    Args:
        count: number of images.
        read: index -> image `[height, width, channels]`. Called from several threads at once.
        labels: integers `[count]`, or None.
        shape: of every image, or None where they differ.
        encoded: index -> what `Images.encoded` returns; None where no image is such a JPEG.
        shape_of: index -> what `Images.shape_of` returns; None where that takes reading.
        remote: see `Images`.
        pixels: the images' channels and depth.
        blocks: see `Images`.
        prefetch: what `Images.prefetch` does; None: nothing.
    """

    def __init__(
        self,
        count: int,
        read: Callable[[int], np.ndarray],
        labels: np.ndarray | None = None,
        shape: Shape | None = None,
        encoded: Callable[[int], bytes | None] | None = None,
        shape_of: Callable[[int], Shape] | None = None,
        remote: bool = False,
        pixels: PixelFormat = RGB,
        blocks: Blocks | None = None,
        prefetch: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self._count = count
        self._read = read
        self._encoded = encoded
        self._shape_of = shape_of
        self._prefetch = prefetch
        self.remote, self.blocks = remote, blocks
        self.labels = _checked_labels(labels, count)
        self.shape = shape
        self.channels, self.dtype = pixels.channels, pixels.dtype

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, self._count)
        image = self._read(index)
        if image.dtype != self.dtype or image.shape[2:] != (self.channels,):
            raise ValueError(
                f"images: expected {self.dtype} images of {self.channels} channels; received "
                f"{image.dtype} {list(image.shape)}"
            )
        return image

    def shape_of(self, index: int) -> Shape:
        """See `Images`."""
        _check_index(index, self._count)
        return super().shape_of(index) if self._shape_of is None else self._shape_of(index)

    def prefetch(self, indices: np.ndarray) -> None:
        """See `Images`."""
        if self._prefetch is not None:
            self._prefetch(indices)

    def encoded(self, index: int) -> bytes | None:
        """See `Images`."""
        return super().encoded(index) if self._encoded is None else self._encoded(index)


class _Subset(_Wrapped):
    """Images of another set at given indices; nothing is copied."""

    def __init__(
        self, images: Images, indices: np.ndarray, labels: np.ndarray | None, shape: Shape | None
    ) -> None:
        super().__init__(images)
        self._indices = indices
        self.labels = labels
        self.shape = shape
        self.blocks = images.blocks and images.blocks.of(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        return self._images[int(self._indices[index])]

    def shape_of(self, index: int) -> Shape:
        """See `Images`."""
        _check_index(index, len(self))
        return self._images.shape_of(int(self._indices[index]))

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """See `Images`."""
        if self._images.shape is None:  # all images have no common shape, these may
            return super().batch(indices)
        return self._images.batch(self._indices[np.asarray(indices, np.int64)])

    def prefetch(self, indices: np.ndarray) -> None:
        """See `Images`."""
        self._images.prefetch(self._indices[indices])

    def encoded(self, index: int) -> bytes | None:
        """See `Images`."""
        _check_index(index, len(self))
        return self._images.encoded(int(self._indices[index]))


class _Concatenated(Images):
    """Two sets, one after the other; nothing is copied."""

    def __init__(self, first: Images, second: Images) -> None:
        self._first = first
        self._second = second
        both = first.labels is not None and second.labels is not None
        self.labels = np.concatenate([first.labels, second.labels]) if both else None
        self.shape = first.shape if first.shape == second.shape else None
        self.remote = first.remote or second.remote
        if first.blocks and second.blocks:  # of one container, whose ids differ
            ids = np.concatenate([first.blocks.ids, second.blocks.ids])
            self.blocks = replace(first.blocks, ids=ids)
        self.channels, self.dtype = first.channels, first.dtype

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        split = len(self._first)
        return self._first[index] if index < split else self._second[index - split]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """See `Images`."""
        if self.shape is None:
            return super().batch(indices)
        indices = np.asarray(indices, np.int64)
        split = len(self._first)
        in_first = indices < split
        out = np.empty((len(indices), *self.shape), self.dtype)
        out[in_first] = self._first.batch(indices[in_first])
        out[~in_first] = self._second.batch(indices[~in_first] - split)
        return out

    def prefetch(self, indices: np.ndarray) -> None:
        """See `Images`."""
        split = len(self._first)
        self._first.prefetch(indices[indices < split])
        self._second.prefetch(indices[indices >= split] - split)

    def encoded(self, index: int) -> bytes | None:
        """See `Images`."""
        _check_index(index, len(self))
        split = len(self._first)
        return self._first.encoded(index) if index < split else self._second.encoded(index - split)


class _Resized(_Wrapped):
    """Images resized and cropped to a square when they are read."""

    def __init__(self, images: Images, size: int) -> None:
        super().__init__(images)
        self._size = size
        self.shape = self._shape = (size, size, images.channels)

    def __getitem__(self, index: int) -> np.ndarray:
        return resize_and_center_crop(self._images[index], self._size)

    def shape_of(self, index: int) -> Shape:
        """See `Images`."""
        self._images.shape_of(index)  # raises where the image can't be read
        return self._shape


def subset(
    images: Images, indices: np.ndarray | Sequence[int], *, shape: Shape | None = None
) -> Images:
    """Returns some of the images, with their labels, in the order given. Nothing is copied.

    Args:
        images: the set.
        indices: int `[k]`.
        shape: common shape of these images, where `images` itself has none.
    """
    indices = np.asarray(indices, np.int64)
    labels = None if images.labels is None else images.labels[indices]
    return _Subset(images, indices, labels, shape or images.shape)


def without_labels(images: Images) -> Images:
    """Returns the same images with `labels` None."""
    if images.labels is None:
        return images
    return _Subset(images, np.arange(len(images), dtype=np.int64), None, images.shape)


def concatenated(first: Images, second: Images) -> Images:
    """Returns the images of `first`, then those of `second`.

    They have labels where both have them, and a shape where both have the same.
    """
    return _Concatenated(first, second)


def resized(images: Images, size: int) -> Images:
    """Returns the images as squares of side `size`, resized when they are read.

    See `resize_and_center_crop`; unchanged where they all have that shape.
    """
    return images if images.shape == (size, size, images.channels) else _Resized(images, size)


def resize_and_center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` and crops the centre.

    Args:
        image: uint8 or uint16 `[height, width, channels]`.
        size: side of the result in pixels.

    Returns:
        `[size, size, channels]` of the same type, resized bicubically with antialiasing (Pillow).
    """
    height, width = image.shape[:2]
    side = min(height, width)
    if side == size:  # only cropped, so that pixels stay unchanged
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]
    top, left = (height - side) / 2, (width - side) / 2
    box = (left, top, left + side, top + side)
    return resize_image(image, size, size, Image.Resampling.BICUBIC, box)


def _for_each(function: Callable[[int], None], numbers: Sequence[int], *, at_once: bool) -> None:
    """Calls a function with each number, in threads if the calls wait for a server."""
    if at_once:
        list(_requests().map(function, numbers))
    else:
        for number in numbers:
            function(number)


@functools.cache
def _requests() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(REQUESTS, thread_name_prefix="request")


def _check_index(index: int, count: int) -> None:
    if not 0 <= index < count:
        raise IndexError(f"index: expected 0 to {count - 1}, received {index}")


def _checked_labels(labels: np.ndarray | None, count: int) -> np.ndarray | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels: expected integers [{count}], received {labels.dtype} {list(labels.shape)}"
        )
    return labels.astype(np.int64)
