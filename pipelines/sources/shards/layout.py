"""Splits and classes of images in shards: those that `lay_out` would see in a folder of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipelines.sources.folder.discovery import DiscoveredFiles
from pipelines.sources.folder.layout import Layout, lay_out, role_of
from pipelines.sources.remote import Location

_SLASH = "\u2215"  # stands for a slash in a class's name


@dataclass(frozen=True)
class PlacedImages:
    """Facts of images before they are read, in their order.

    Attributes:
        names: a different one for each, for messages and tables.
        paths: of each in its shard, with "/"; only folders matter.
        roles: the split that a shard's name says, or None.
        classes: the class that is stated with an image, or None.
        sizes: bytes of each; -1 where they aren't known.
    """

    names: Sequence[str]
    paths: Sequence[str]
    roles: Sequence[str | None]
    classes: Sequence[str | None]
    sizes: Sequence[int]


def lay_out_images(images: PlacedImages, root: Location, seed: int, choice: str) -> Layout:
    """Sorts images into splits and classes, as if they lay in a folder.

    Where classes are stated, a folder `split/class/`; else the folders are those of the images'
    paths, below a folder of the split if the shard's name says one.

    Args:
        images: of all shards.
        root: for messages.
        seed: of the split into train and test, where there is none.
        choice: one of `folder.layout.LAYOUTS`.

    Returns:
        The layout, its files by the images' names; within a split they are in the images' order.

    Raises:
        SourceError: see `lay_out`.
    """
    classes, notes = list(images.classes), []
    if choice == "flat" or not any(classes):
        classes = [None] * len(classes)
    elif _are_captions(classes):
        notes.append(
            "more than half of the images have a label that no other has: these are no classes, "
            "and the images are unlabelled"
        )
        classes = [None] * len(classes)
    origin = "each label" if any(classes) else "each folder"
    if any(classes):
        tops = _stated_folders(images.roles, classes)
        if choice != "splits":
            choice = "splits" if any(images.roles) or not all(classes) else "classes"
    else:
        tops = _path_folders(images)
    # The last part is the image's number: it is different for each, and what names it afterwards.
    sizes = {
        f"{top}{number}": size
        for number, (top, size) in enumerate(zip(tops, images.sizes, strict=True))
    }
    layout = lay_out(DiscoveredFiles(root, sizes), seed, choice)
    files, labels = {}, {}
    for split, paths in layout.files.items():
        numbers = np.array([int(path.rpartition("/")[2]) for path in paths], np.int64)
        order = np.argsort(numbers)
        files[split] = [images.names[number] for number in numbers[order]]
        if split in layout.labels:
            labels[split] = layout.labels[split][order]
    return replace(
        layout,
        files=files,
        labels=labels,
        class_names=tuple(name.replace(_SLASH, "/") for name in layout.class_names),
        notes=[*(note.replace("each folder", origin) for note in layout.notes), *notes],
    )


def _are_captions(classes: Sequence[str | None]) -> bool:
    counts = Counter(name for name in classes if name is not None)
    single = sum(count == 1 for count in counts.values())
    return single > 100 and single > counts.total() / 2


def _stated_folders(roles: Sequence[str | None], classes: Sequence[str | None]) -> list[str]:
    mixed = any(roles) or not all(classes)
    folders = []
    for role, name in zip(roles, classes, strict=True):
        if mixed:
            role = role or ("labelled" if name else "unlabelled")
        top = f"{role}/" if role else ""
        folders.append(f"{top}{name.replace('/', _SLASH)}/" if name else top)
    return folders


def _path_folders(images: PlacedImages) -> list[str]:
    folders = [path.rpartition("/")[0] for path in images.paths]
    folders = [f"{folder.strip('./')}/" if folder.strip("./") else "" for folder in folders]
    # A folder around all others is how an archive was made; it says nothing.
    while folders and folders[0]:
        top = folders[0].partition("/")[0] + "/"
        if role_of(top[:-1]) is not None or not all(each.startswith(top) for each in folders):
            break
        folders = [each[len(top) :] for each in folders]
    tops = []
    for folder, role in zip(folders, images.roles, strict=True):
        inside = role is None or role_of(folder.partition("/")[0]) == role
        tops.append(folder if inside else f"{role}/{folder}")
    return tops
