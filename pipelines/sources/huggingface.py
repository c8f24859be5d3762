"""The source "huggingface": a data set of Hugging Face's `datasets`, from its hub or from disk."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.extras import install_line
from pipelines.regular_files import check_size, open_regular
from pipelines.sources.base import RawSource, Request, SourceError, SourceInfo
from pipelines.sources.folder.layout import roles_in
from pipelines.sources.folder.table import CLASS_COLUMNS
from pipelines.sources.image_file import UnreadableImage
from pipelines.sources.shards.layout import PlacedImages
from pipelines.sources.shards.photos import Container, describe_container, load_container

try:
    import datasets
except ImportError as error:
    raise SourceError(
        f'data.source "huggingface" needs the package datasets: {install_line("hf")}'
    ) from error


def describe(request: Request) -> SourceInfo:
    """Counts the images; a data set that isn't here yet isn't downloaded. Raises SourceError."""
    builder = _builder(request)
    splits = None if builder is None else builder.info.splits
    if builder is None or not splits or os.path.isdir(builder.cache_dir):
        return describe_container(request, _container(request))
    counts: dict[str, int] = {}
    for name, split in splits.items():
        role = {"val": "test"}.get(_role(name) or "", _role(name) or "unlabelled")
        counts[role] = counts.get(role, 0) + split.num_examples
    label = _label_column(builder.info.features or {})
    classes = len(getattr((builder.info.features or {}).get(label or ""), "names", ()))
    size = (builder.info.download_size or 0) / 1e9
    note = f"{request.root}: not here yet: would be downloaded ({size:.2f} GB)"
    return SourceInfo(counts, classes, None, notes=(note,), ready=False)


def load(request: Request) -> RawSource:
    """Opens the data set, downloaded if it isn't here yet. Raises SourceError."""
    return load_container(request, _container(request))


def _container(request: Request) -> Container:
    splits = _splits(request)
    columns = {name: _image_column(request.root, split.features) for name, split in splits.items()}
    encoded = [
        split.select_columns([columns[name]]).cast_column(
            columns[name], datasets.Image(decode=False)
        )
        for name, split in splits.items()
    ]
    places = [(number, row) for number, split in enumerate(encoded) for row in range(len(split))]
    sizes = {name: len(split) for name, split in splits.items()}
    if request.manifest is not None and dict(request.manifest.sizes) != sizes:
        raise SourceError(
            f"data.root: {request.root} has other images than when this run began: "
            f"{dict(request.manifest.sizes)} then, {sizes} now. Bring those back, or start a new "
            "run in another folder"
        )

    def read(index: int) -> bytes:
        number, row = places[index]
        image = next(iter(encoded[number][row].values()))
        if image is None or (image["bytes"] is None and image["path"] is None):
            raise UnreadableImage("its row has no image")
        if image["bytes"] is not None:
            return image["bytes"]
        try:
            with open_regular(image["path"]) as file:
                check_size(image["path"], os.fstat(file.fileno()).st_size)
                return file.read()
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error

    names = [f"{name}/{row}" for name, split in splits.items() for row in range(len(split))]
    images = PlacedImages(
        names=names,
        paths=names,
        roles=[_role(name) for name, split in splits.items() for _ in range(len(split))],
        classes=[label for split in splits.values() for label in _labels(split)],
        sizes=[-1] * len(names),
    )
    note = f"{len(names):,} images of {request.root}: " + ", ".join(
        f"{name} {count:,}" for name, count in sizes.items()
    )
    return Container(Path(str(request.root)), images, read, sizes, (note,))


def _builder(request: Request) -> Any:
    """Returns what would download or prepare a data set; None for one that was saved to disk."""
    root = _root(request)
    if os.path.isdir(root) and _is_saved(root):
        return None
    name, config = root, None
    if not os.path.exists(root):
        name, _, config = root.partition(":")
    with _errors(root):
        return datasets.load_dataset_builder(name, config or None)


def _splits(request: Request) -> Mapping[str, Any]:
    root = _root(request)
    builder = _builder(request)
    with _errors(root):
        if builder is None:
            loaded = datasets.load_from_disk(root)
        else:
            builder.download_and_prepare()
            loaded = builder.as_dataset()
    return loaded if isinstance(loaded, Mapping) else {"train": loaded}


def _root(request: Request) -> str:
    if request.root is None:
        raise SourceError(
            'data.root is missing: data.source "huggingface" needs a data set\'s name'
        )
    return request.root


def _is_saved(root: str) -> bool:
    return any(
        os.path.exists(os.path.join(root, name)) for name in ("dataset_dict.json", "state.json")
    )


@contextlib.contextmanager
def _errors(root: str) -> Iterator[None]:
    """Raises `SourceError` for whatever `datasets` raises, which is of many packages."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise SourceError(
            f"data.root: {root}: datasets can't load it: {reason}. Expected a folder that "
            "save_to_disk wrote, a folder of Parquet files or images, or a name of the hub, NAME "
            "or NAME:CONFIG"
        ) from error


def _role(split: str) -> str | None:
    roles = roles_in(split)
    return roles.pop() if len(roles) == 1 else None


def _image_column(root: str | None, features: Mapping[str, Any]) -> str:
    for name, feature in features.items():
        if isinstance(feature, datasets.Image):
            return name
    raise SourceError(
        f"data.root: {root} has no column of images; it has {', '.join(sorted(features))}"
    )


def _label_column(features: Mapping[str, Any]) -> str | None:
    named = [name for name in CLASS_COLUMNS if name in features]
    classes = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    return next(
        (
            name
            for name in (*named, *classes)
            if isinstance(features[name], datasets.ClassLabel)
            or getattr(features[name], "dtype", "").startswith(
                ("int", "uint", "string", "large_string")
            )
        ),
        None,
    )


def _labels(split: Any) -> list[str | None]:
    """Returns the class of each image, or None for each."""
    column = _label_column(split.features)
    if column is None:
        return [None] * len(split)
    feature, values = split.features[column], split[column][:]  # a lazy column otherwise
    names = getattr(feature, "names", None)
    return [
        None if value is None or value == -1 else names[value] if names else str(value)
        for value in values
    ]
