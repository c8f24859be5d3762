"""Infers splits and classes of photos from the directory structure, or from a list's classes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipelines.sources.base import SourceError, generator
from pipelines.sources.folder.discovery import DiscoveredFiles, printable

TEST_FRACTION = 0.2
"""Fraction of each class that becomes the test set where a folder has none of its own."""

_ROLES = {
    "unlabeled": "unlabelled",
    "unlabelled": "unlabelled",
    "train": "train",
    "test": "test",
    "val": "val",
}

_ALL_UNLABELLED = (
    'the unlabelled photos are all of them without their labels; data.pretrain "train" '
    "keeps the test photos out"
)

_Classes = dict[str, list[str]]


@dataclass
class Layout:
    """Splits and labels of photos.

    Attributes:
        files: for each split that there is, paths below the root.
        labels: int64, for "train" and "test".
        class_names: ascending; empty where there are no labels.
        unlabelled_from: the splits that make up the unlabelled photos.
        notes: lines for people.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    unlabelled_from: tuple[str, ...] = ("unlabelled",)
    notes: list[str] = field(default_factory=list)


def lay_out(files: DiscoveredFiles, seed: int) -> Layout:
    """Sorts photos into splits and classes.

    In a folder, `unlabeled/` or `unlabelled/`, `train/<class>/` and `test/<class>/` (or
    `val/<class>/`) are recognised; any may be absent. Without them, two or more folders side by
    side are classes, and anything else are unlabelled photos. In a list, photos with a class are
    divided as class folders are, the others are unlabelled.

    Args:
        files: the photos.
        seed: of the split into train and test, where there is none.

    Raises:
        SourceError: no photos; one class only; test classes that train has not; the root lies one
            folder deeper; a folder among classes that has a split's name.
    """
    return _lay_out_folder(files, seed) if files.list_file is None else _lay_out_list(files, seed)


def _lay_out_folder(files: DiscoveredFiles, seed: int) -> Layout:
    if not files.sizes:
        raise SourceError(f"data.root: {files.no_photos_message()}")
    by_top: dict[str, list[str]] = defaultdict(list)
    loose = [path for path in files.sizes if "/" not in path]
    for path in files.sizes:
        if "/" in path:
            by_top[path.split("/", 1)[0]].append(path)
    roles: dict[str, list[str]] = defaultdict(list)
    skipped = len(loose)
    for top, paths in by_top.items():
        if top.lower() in _ROLES:
            roles[_ROLES[top.lower()]] += paths
        else:
            skipped += len(paths)
    layout = Layout()
    if roles:
        _check_is_no_class(files, by_top)
        if skipped:
            layout.notes.append(
                f"skipped: {skipped:,} photo(s) that lie in none of unlabelled/, train/ and test/"
            )
        _assign_roles(layout, roles, seed)
    elif len(by_top) >= 2 and not loose:
        layout.notes.append(
            f"each folder is a class; {TEST_FRACTION:.0%} of each, drawn by the seed, are the test "
            "set"
        )
        layout.notes.append(_ALL_UNLABELLED)
        layout.unlabelled_from = ("train", "test")
        _divide(layout, by_top, "the folder", seed)
    else:
        _check_is_no_parent(files, by_top)
        layout.files["unlabelled"] = list(files.sizes)
        layout.notes.append("all photos are unlabelled: there is no probe (it needs class folders)")
    return layout


def _lay_out_list(files: DiscoveredFiles, seed: int) -> Layout:
    layout = Layout()
    classes: _Classes = defaultdict(list)
    for path in files.sizes:
        if path in files.class_of:
            classes[files.class_of[path]].append(path)
        else:
            layout.files.setdefault("unlabelled", []).append(path)
    if len(classes) == 1:
        name = printable(next(iter(classes)))
        raise SourceError(
            f"data.root: {files.list_file} has one class ({name}); a probe needs two or more. "
            "Photos without a class are unlabelled"
        )
    if not classes:
        layout.notes.append("a list without classes: there is no probe")
        return layout
    layout.notes.append(
        f"{TEST_FRACTION:.0%} of each class of the list, drawn by the seed, are the test set"
    )
    if "unlabelled" not in layout.files:
        layout.notes.append(_ALL_UNLABELLED)
        layout.unlabelled_from = ("train", "test")
    _divide(layout, classes, "the list", seed)
    return layout


def _check_is_no_class(files: DiscoveredFiles, by_top: Mapping[str, list[str]]) -> None:
    """Raises SourceError where a split's folder may as well be a class.

    An example is `train/`, of locomotives, next to `bus/` and `car/`.
    """
    splits = [top for top in by_top if top.lower() in _ROLES]
    others = sorted(set(by_top) - set(splits))
    if (
        len(splits) != 1
        or not others
        or _ROLES[splits[0].lower()] == "unlabelled"
        or any(path.count("/") > 1 for path in by_top[splits[0]])
    ):
        return
    raise SourceError(
        f"data.root: {files.folder} has {printable(splits[0])}/ next to "
        f"{', '.join(map(printable, others[:3]))}. If it is a class, give it another name; if it "
        "holds the photos to learn from, put nothing else next to it but unlabelled/, train/ and "
        "test/"
    )


def _check_is_no_parent(files: DiscoveredFiles, by_top: Mapping[str, list[str]]) -> None:
    """Raises SourceError where the folder's only subfolder is what was meant."""
    if len(by_top) != 1 or len(next(iter(by_top.values()))) != len(files.sizes):
        return
    subfolders = {path.split("/")[1] for path in files.sizes if path.count("/") >= 2}
    splits = sorted(name for name in subfolders if name.lower() in _ROLES)
    if splits:
        top = printable(next(iter(by_top)))
        raise SourceError(
            f"data.root: {files.folder} holds only {top}/, which has "
            f"{' and '.join(f'{name}/' for name in splits)}; data.root should be "
            f"{files.folder / top}"
        )


def _assign_roles(layout: Layout, roles: Mapping[str, list[str]], seed: int) -> None:
    """Fills the layout of a folder with `unlabelled/`, `train/`, `test/` or `val/`."""
    if "unlabelled" in roles:
        layout.files["unlabelled"] = roles["unlabelled"]
    if "test" in roles and "val" in roles:
        layout.notes.append("val/ is skipped: there is test/")
    labelled: dict[str, _Classes] = {}
    for split, role in (("train", "train"), ("test", "test" if "test" in roles else "val")):
        if role in roles and (classes := _class_folders(layout, roles, role)):
            labelled[split] = classes
    for split, classes in labelled.items():
        if len(classes) == 1:
            raise SourceError(
                f"data.root: {split}/ has one class folder ({printable(next(iter(classes)))}); a "
                "probe needs two or more. Photos without classes belong into unlabelled/"
            )
    if len(labelled) == 2:
        _check_same_classes(layout, labelled["train"], labelled["test"])
        layout.class_names = tuple(sorted(labelled["train"]))
        for split, classes in labelled.items():
            _add_labelled(layout, split, classes)
    elif labelled:
        role, classes = next(iter(labelled.items()))
        other = "test" if role == "train" else "train"
        layout.notes.append(
            f"there is no {other}/: {TEST_FRACTION:.0%} of each class of {role}/, drawn by the "
            "seed, are the test set"
        )
        _divide(layout, classes, f"{role}/", seed)
    if not layout.files:
        raise SourceError(
            "data.root: there are test photos without class folders and nothing to learn from; "
            "unlabelled/ or train/<class>/ is needed"
        )


def _class_folders(layout: Layout, roles: Mapping[str, list[str]], role: str) -> _Classes:
    """Returns the photos of `role/<class>/` by class; photos directly in `role/` have none.

    Those are unlabelled in a `train/` that is all there is to learn from; otherwise they are
    skipped.
    """
    classes: _Classes = defaultdict(list)
    flat = []
    for path in roles[role]:
        names = path.split("/")
        if len(names) > 2:
            classes[names[1]].append(path)
        else:
            flat.append(path)
    if classes and flat:
        layout.notes.append(
            f"skipped: {len(flat):,} photo(s) directly in {role}/, which have no class"
        )
    elif not classes and role == "train" and "unlabelled" not in roles:
        layout.files["unlabelled"] = flat
        layout.notes.append(
            "train/ has no class folders: its photos are unlabelled, and there is no probe"
        )
    elif not classes:
        layout.notes.append(f"{role}/ has no class folders: its {len(flat):,} photo(s) are skipped")
    return dict(classes)


def _check_same_classes(layout: Layout, train: _Classes, test: _Classes) -> None:
    """Raises SourceError for test classes without train photos; notes the opposite."""
    unknown = sorted(set(test) - set(train))
    if unknown:
        raise SourceError(
            f"data.root: classes of the test photos that train/ has not: {_abbreviated(unknown)}; "
            f"train/ has {_abbreviated(train)}"
        )
    absent = sorted(set(train) - set(test))
    if absent:
        layout.notes.append(f"no test photos of {len(absent)} class(es): {_abbreviated(absent)}")


def _divide(layout: Layout, classes: Mapping[str, list[str]], origin: str, seed: int) -> None:
    """Divides one labelled set into train and test."""
    rng = generator(seed, "train and test")
    train: _Classes = {}
    test: _Classes = {}
    for name in sorted(classes):
        paths = classes[name]
        order = rng.permutation(len(paths))
        # A class of one photo has a train photo and no test photo.
        count = min(max(1, round(TEST_FRACTION * len(paths))), len(paths) - 1)
        test[name] = [paths[index] for index in sorted(order[:count])]
        train[name] = [paths[index] for index in sorted(order[count:])]
    if not any(test.values()):
        layout.notes.append(
            f"each class of {origin} has one photo: they are unlabelled, and there is no probe"
        )
        layout.files.setdefault("unlabelled", []).extend(
            path for name in sorted(classes) for path in classes[name]
        )
        layout.unlabelled_from = ("unlabelled",)
        return
    layout.class_names = tuple(sorted(classes))
    _add_labelled(layout, "train", train)
    _add_labelled(layout, "test", test)


def _add_labelled(layout: Layout, split: str, classes: _Classes) -> None:
    names = sorted(classes)
    labels = {name: label for label, name in enumerate(layout.class_names)}
    layout.files[split] = [path for name in names for path in classes[name]]
    layout.labels[split] = np.repeat(
        [labels[name] for name in names], [len(classes[name]) for name in names]
    ).astype(np.int64)


def _abbreviated(names: Iterable[str]) -> str:
    printed = sorted(map(printable, names))
    more = f" and {len(printed) - 5} more" if len(printed) > 5 else ""
    return ", ".join(printed[:5]) + more
