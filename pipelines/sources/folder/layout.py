"""What the places of photos say: unlabelled, or of a class, to train or to test on."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.sources.base import SourceError, stream
from pipelines.sources.folder.discovery import DiscoveredFiles, printable

TEST_SHARE = 0.2
"""Share of each class that becomes the test set where a folder has none of its own."""

_ROLES = {
    "unlabeled": "unlabelled",
    "unlabelled": "unlabelled",
    "train": "train",
    "test": "test",
    "val": "val",
}

_ALL_OF_THEM = (
    'the unlabelled photos are all of them without their labels; data.pretrain "train" '
    "keeps the test photos out"
)

_Classes = dict[str, list[str]]


@dataclass
class Layout:
    """The photos of a folder.

    Attributes:
        files: for each split that the folder has, paths below its root.
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


def lay_out(folder: Path, found: DiscoveredFiles, seed: int) -> Layout:
    """Sorts the photos of a folder into splits and classes.

    `unlabeled/` or `unlabelled/`, `train/<class>/` and `test/<class>/` (or `val/<class>/`) are
    understood; any may be absent. Without them, two or more folders side by side are classes, and
    anything else is a heap of unlabelled photos.

    Args:
        folder: the root, for messages.
        found: what lies below it.
        seed: of the split into train and test, where the folder has none.

    Raises:
        SourceError: no photos; one class only; test classes that train has not; the root lies one
            folder deeper; a folder among classes that has a split's name.
    """
    if not found.sizes:
        raise SourceError(f"data.root: {found.no_photos(folder)}")
    by_top: dict[str, list[str]] = defaultdict(list)
    loose = [path for path in found.sizes if "/" not in path]
    for path in found.sizes:
        if "/" in path:
            by_top[path.split("/", 1)[0]].append(path)
    layout = Layout()
    roles: dict[str, list[str]] = defaultdict(list)
    left_out = len(loose)
    for top, paths in by_top.items():
        if top.lower() in _ROLES:
            roles[_ROLES[top.lower()]] += paths
        else:
            left_out += len(paths)
    if roles:
        _check_no_class(folder, by_top)
        if left_out:
            layout.notes.append(
                f"left out: {left_out:,} photo(s) that lie in none of unlabelled/, train/ and test/"
            )
        _from_roles(layout, roles, seed)
    elif len(by_top) >= 2 and not loose:
        layout.notes.append(
            f"each folder is a class; {TEST_SHARE:.0%} of each, drawn by the seed, are the test set"
        )
        layout.notes.append(_ALL_OF_THEM)
        layout.unlabelled_from = ("train", "test")
        _divided(layout, by_top, "", seed)
    else:
        _heap(layout, folder, found, by_top)
    return layout


def _check_no_class(folder: Path, by_top: Mapping[str, list[str]]) -> None:
    """Raises SourceError where a split's folder may as well be a class: of trains, beside buses and
    cars."""
    named = [top for top in by_top if top.lower() in _ROLES]
    others = sorted(set(by_top) - set(named))
    if (
        len(named) != 1
        or not others
        or _ROLES[named[0].lower()] == "unlabelled"
        or any(path.count("/") > 1 for path in by_top[named[0]])
    ):
        return
    raise SourceError(
        f"data.root: {folder} has {printable(named[0])}/ beside "
        f"{', '.join(map(printable, others[:3]))}. If it is a class, give it "
        "another name; if it holds the photos to learn from, put nothing else beside it but "
        "unlabelled/, train/ and test/"
    )


def lay_out_list(
    file: Path, found: DiscoveredFiles, class_of: Mapping[str, str], seed: int
) -> Layout:
    """Sorts the photos of a list: those with a class are divided as class folders are, the others
    are unlabelled.

    Args:
        file: the list, for messages.
        found: what is there of it.
        class_of: the class of each path that has one.
        seed: of the split into train and test.

    Raises:
        SourceError: one class only.
    """
    layout = Layout()
    classes: _Classes = defaultdict(list)
    for path in found.sizes:
        if path in class_of:
            classes[class_of[path]].append(path)
        else:
            layout.files.setdefault("unlabelled", []).append(path)
    if len(classes) == 1:
        name = printable(next(iter(classes)))
        raise SourceError(
            f"data.root: {file} has one class ({name}); a probe needs two or more. Photos without "
            "a class are unlabelled"
        )
    if not classes:
        layout.notes.append("a list without classes: there is no probe")
        return layout
    layout.notes.append(
        f"{TEST_SHARE:.0%} of each class of the list, drawn by the seed, are the test set"
    )
    if "unlabelled" not in layout.files:
        layout.notes.append(_ALL_OF_THEM)
        layout.unlabelled_from = ("train", "test")
    _divided(layout, classes, "the list", seed)
    return layout


def _from_roles(layout: Layout, roles: dict[str, list[str]], seed: int) -> None:
    if "unlabelled" in roles:
        layout.files["unlabelled"] = roles["unlabelled"]
    if "test" in roles and "val" in roles:
        layout.notes.append("val/ is left out: there is test/")
    labelled: dict[str, _Classes] = {}
    for split, role in (("train", "train"), ("test", "test" if "test" in roles else "val")):
        if role not in roles:
            continue
        classes, flat = _by_class(roles[role])
        if classes:
            labelled[split] = classes
            if flat:
                layout.notes.append(
                    f"left out: {len(flat):,} photo(s) directly in {role}/, which have no class"
                )
        elif role == "train" and "unlabelled" not in roles:
            layout.files["unlabelled"] = flat
            layout.notes.append(
                "train/ has no class folders: its photos are unlabelled, and there is no probe"
            )
        else:
            layout.notes.append(
                f"{role}/ has no class folders: its {len(flat):,} photo(s) are left out"
            )
    for split, classes in labelled.items():
        if len(classes) == 1:
            raise SourceError(
                f"data.root: {split}/ has one class folder ({printable(next(iter(classes)))}); a "
                "probe needs two or more. "
                "Photos without classes belong into unlabelled/"
            )
    if len(labelled) == 2:
        unknown = sorted(set(labelled["test"]) - set(labelled["train"]))
        if unknown:
            raise SourceError(
                f"data.root: classes of the test photos that train/ has not: {_some(unknown)}; "
                f"train/ has {_some(labelled['train'])}"
            )
        absent = sorted(set(labelled["train"]) - set(labelled["test"]))
        if absent:
            layout.notes.append(f"no test photos of {len(absent)} class(es): {_some(absent)}")
        layout.class_names = tuple(sorted(labelled["train"]))
        for split, classes in labelled.items():
            _set(layout, split, classes)
    elif labelled:
        role, classes = next(iter(labelled.items()))
        other = "test" if role == "train" else "train"
        layout.notes.append(
            f"there is no {other}/: {TEST_SHARE:.0%} of each class of {role}/, drawn by the seed, "
            "are the test set"
        )
        _divided(layout, classes, f"{role}/", seed)
    if not layout.files:
        raise SourceError(
            "data.root: there are test photos without class folders and nothing to learn from; "
            "unlabelled/ or train/<class>/ is needed"
        )


def _divided(layout: Layout, classes: _Classes, where: str, seed: int) -> None:
    """One labelled set -> train and test."""
    draw = stream(seed, "train and test")
    train: _Classes = {}
    test: _Classes = {}
    for name in sorted(classes):
        paths = classes[name]
        order = draw.permutation(len(paths))
        count = min(
            max(1, round(TEST_SHARE * len(paths))), len(paths) - 1
        )  # one photo alone is a train photo
        test[name] = [paths[index] for index in sorted(order[:count])]
        train[name] = [paths[index] for index in sorted(order[count:])]
    if not any(test.values()):
        layout.notes.append(
            f"each class of {where or 'the folder'} has one photo: they are unlabelled, and there "
            "is no probe"
        )
        layout.files.setdefault("unlabelled", []).extend(
            path for name in sorted(classes) for path in classes[name]
        )
        layout.unlabelled_from = ("unlabelled",)
        return
    layout.class_names = tuple(sorted(classes))
    _set(layout, "train", train)
    _set(layout, "test", test)


def _heap(
    layout: Layout, folder: Path, found: DiscoveredFiles, by_top: dict[str, list[str]]
) -> None:
    if len(by_top) == 1 and len(next(iter(by_top.values()))) == len(found.sizes):
        top = next(iter(by_top))
        below = sorted(
            {
                path.split("/")[1]
                for path in found.sizes
                if path.count("/") >= 2 and path.split("/")[1].lower() in _ROLES
            }
        )
        if below:
            inside = " and ".join(f"{name}/" for name in below)
            name = printable(top)
            raise SourceError(
                f"data.root: {folder} holds only {name}/, which has {inside}; data.root should be "
                f"{folder / name}"
            )
    layout.files["unlabelled"] = list(found.sizes)
    layout.notes.append("one heap of unlabelled photos: there is no probe (it needs class folders)")


def _by_class(paths: list[str]) -> tuple[_Classes, list[str]]:
    """Paths `role/class/...` by class, and those that lie directly in the role's folder."""
    classes: _Classes = defaultdict(list)
    flat = []
    for path in paths:
        parts = path.split("/")
        if len(parts) > 2:
            classes[parts[1]].append(path)
        else:
            flat.append(path)
    return dict(classes), flat


def _set(layout: Layout, split: str, classes: _Classes) -> None:
    numbers = {name: number for number, name in enumerate(layout.class_names)}
    names = sorted(classes)
    layout.files[split] = [path for name in names for path in classes[name]]
    layout.labels[split] = np.repeat(
        [numbers[name] for name in names], [len(classes[name]) for name in names]
    ).astype(np.int64)


def _some(names: object) -> str:
    names = sorted(map(printable, names))
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
