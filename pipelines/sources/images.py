"""Images that are reached by their index, and views of them.

Order, resume and sharding are then functions of (seed, epoch, position) and of nothing else:
whoever reads can begin anywhere. Nothing here holds a state that reading changes, so several
threads may read at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

Shape = tuple[int, int, int]


class Images(ABC):
    """A set of images, each reached by its index.

    Attributes:
        labels: int64 `[n]`, one class number an image, or None where the images have no labels.
        shape: `(height, width, 3)` of every image, or None where they differ or where nobody has
            looked yet.
    """

    labels: np.ndarray | None
    shape: Shape | None

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> np.ndarray:
        """Returns image `index` as uint8 `[height, width, 3]`, RGB. Raises IndexError outside
        0..n-1."""

    def shape_of(self, index: int) -> Shape:
        """The shape of `self[index]`, which may be known without reading it. Raises as that
        does."""
        return self[index].shape

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """Returns the images at `indices`, int `[k]`, as uint8 `[k, height, width, 3]`. Raises
        ValueError where `shape` is None."""
        if self.shape is None:
            raise ValueError("batch: expected images of one shape; these differ in size")
        out = np.empty((len(indices), *self.shape), np.uint8)
        for row, index in enumerate(indices):
            out[row] = self[int(index)]
        return out

    def encoded(self, index: int) -> bytes | None:
        """Returns image `index` as it lies there, if it is a JPEG of which any part can be decoded
        to the pixels of `self[index]`.

        None where it is anything else, or where `self[index]` would say why it can't be read.
        Raises IndexError as that does.
        """
        _check_index(index, len(self))
        return None


class ArrayImages(Images):
    """Images held in memory.

    Args:
        images: uint8 `[n, height, width, 3]`.
        labels: integers `[n]`, or None.
        together: False for images that are too large to be worked on in batches: their `shape` is
            None then, as if they differed.

    Raises:
        ValueError: another type or shape.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray | None = None, *, together: bool = True
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(
                f"images: expected uint8 [n, height, width, 3], received {images.dtype} "
                f"{list(images.shape)}"
            )
        self._images = images
        self.labels = _checked_labels(labels, len(images))
        self.shape = (images.shape[1], images.shape[2], 3) if together else None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        return self._images[index]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        return self._images[np.asarray(indices, np.int64)]


class LazyImages(Images):
    """Images that a function reads, each time anew.

    Args:
        count: how many there are.
        read: index -> uint8 `[height, width, 3]`. Called from several threads at once.
        labels: integers `[count]`, or None.
        shape: of every image, or None where they differ.
        encoded: index -> see `Images.encoded`, called like `read`; or None where no image is such a
            JPEG.
        shape_of: index -> see `Images.shape_of`, called like `read`; or None where it takes
            reading.
    """

    def __init__(
        self,
        count: int,
        read: Callable[[int], np.ndarray],
        labels: np.ndarray | None = None,
        shape: Shape | None = None,
        encoded: Callable[[int], bytes | None] | None = None,
        shape_of: Callable[[int], Shape] | None = None,
    ) -> None:
        self._count = count
        self._read = read
        self._encoded = encoded
        self._shape_of = shape_of
        self.labels = _checked_labels(labels, count)
        self.shape = shape

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, self._count)
        return self._read(index)

    def shape_of(self, index: int) -> Shape:
        _check_index(index, self._count)
        return super().shape_of(index) if self._shape_of is None else self._shape_of(index)

    def encoded(self, index: int) -> bytes | None:
        return super().encoded(index) if self._encoded is None else self._encoded(index)


class _Chosen(Images):
    """The images of another set at given indices; nothing is copied."""

    def __init__(
        self, images: Images, indices: np.ndarray, labels: np.ndarray | None, shape: Shape | None
    ) -> None:
        self._images = images
        self._indices = indices
        self.labels = labels
        self.shape = shape

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        return self._images[int(self._indices[index])]

    def shape_of(self, index: int) -> Shape:
        _check_index(index, len(self))
        return self._images.shape_of(int(self._indices[index]))

    def batch(self, indices: np.ndarray) -> np.ndarray:
        if self._images.shape is None:  # the set knows no common shape, this choice of it may
            return super().batch(indices)
        return self._images.batch(self._indices[np.asarray(indices, np.int64)])

    def encoded(self, index: int) -> bytes | None:
        _check_index(index, len(self))
        return self._images.encoded(int(self._indices[index]))


class _Concatenated(Images):
    """One set after another; nothing is copied."""

    def __init__(self, first: Images, second: Images) -> None:
        self._first = first
        self._second = second
        both = first.labels is not None and second.labels is not None
        self.labels = np.concatenate([first.labels, second.labels]) if both else None
        self.shape = first.shape if first.shape == second.shape else None

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, index: int) -> np.ndarray:
        _check_index(index, len(self))
        split = len(self._first)
        return self._first[index] if index < split else self._second[index - split]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        if self.shape is None:
            return super().batch(indices)
        indices = np.asarray(indices, np.int64)
        split = len(self._first)
        in_first = indices < split
        out = np.empty((len(indices), *self.shape), np.uint8)
        out[in_first] = self._first.batch(indices[in_first])
        out[~in_first] = self._second.batch(indices[~in_first] - split)
        return out

    def encoded(self, index: int) -> bytes | None:
        _check_index(index, len(self))
        split = len(self._first)
        return self._first.encoded(index) if index < split else self._second.encoded(index - split)


class _Resized(Images):
    """Each image resized and cut to a square when it is read."""

    def __init__(self, images: Images, size: int) -> None:
        self._images = images
        self._size = size
        self.labels = images.labels
        self.shape = (size, size, 3)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> np.ndarray:
        return resize_and_center_crop(self._images[index], self._size)

    def shape_of(self, index: int) -> Shape:
        self._images.shape_of(index)  # which raises where it can't be read
        return self.shape


def subset(
    images: Images, indices: np.ndarray | Sequence[int], *, shape: Shape | None = None
) -> Images:
    """The images at `indices`, int `[k]`, with their labels, in that order. Nothing is copied.

    `shape` states the common shape of the chosen ones where `images` itself has none.
    """
    indices = np.asarray(indices, np.int64)
    labels = None if images.labels is None else images.labels[indices]
    return _Chosen(images, indices, labels, shape or images.shape)


def without_labels(images: Images) -> Images:
    """The same images with `labels` None."""
    if images.labels is None:
        return images
    return _Chosen(images, np.arange(len(images), dtype=np.int64), None, images.shape)


def concatenated(first: Images, second: Images) -> Images:
    """The images of `first`, then those of `second`; labels where both have them, a shape where
    both have the same."""
    return _Concatenated(first, second)


def resized(images: Images, size: int) -> Images:
    """The images as squares of side `size`: see `resize_and_center_crop`. Resized when they are
    read; as they are where they have that shape."""
    return images if images.shape == (size, size, 3) else _Resized(images, size)


def resize_and_center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes the shorter side to `size` and cuts out the centre; an image that is so already is
    returned as it is.

    Args:
        image: uint8 `[height, width, 3]`.
        size: side of the result in pixels.

    Returns:
        uint8 `[size, size, 3]`, resized bicubically with antialiasing (Pillow).
    """
    height, width = image.shape[:2]
    side = min(height, width)
    if side == size:  # only cut, so that pixels stay what they are
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]
    top, left = (height - side) / 2, (width - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(
        Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=box)
    )


def balanced_indices(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws `count` images with as equal a number of each class as there are images for.

    A larger `count` with the same seed contains every smaller one.

    Args:
        labels: int `[n]`.
        count: how many to draw; n or more gives all.
        seed: of the draw.

    Returns:
        int64 `[min(count, n)]`, ascending.
    """
    labels = np.asarray(labels)
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(labels))
    classes, numbers = np.unique(labels[order], return_inverse=True)
    by_class = np.argsort(numbers, kind="stable")
    starts = np.searchsorted(numbers[by_class], np.arange(len(classes)))
    rank = np.empty(len(labels), np.int64)  # the how-manieth of its class each image is
    rank[by_class] = np.arange(len(labels)) - starts[numbers[by_class]]
    turn = draw.permutation(
        len(classes)
    )  # who goes first in a round, so that a remainder favours no class
    return np.sort(order[np.lexsort((turn[numbers], rank))[:count]]).astype(np.int64)


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
